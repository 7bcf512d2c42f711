import argparse
import os
from pathlib import Path

import joblib
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_squared_error

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    # A job sets both variables; by hand they are arguments.
    for option, variable in {"--train": "SM_CHANNEL_TRAIN", "--model-dir": "SM_MODEL_DIR"}.items():
        parser.add_argument(option, default=os.environ.get(variable), required=variable not in os.environ)
    args = parser.parse_args()

    data = pd.concat(pd.read_csv(file) for file in sorted(Path(args.train).glob("*.csv")))
    X = data[["X1", "X2"]]
    y = data["y"]

    model = LinearRegression()
    model.fit(X, y)

    mse = mean_squared_error(y, model.predict(X))
    print("Mean squared error:", mse)

    joblib.dump(model, Path(args.model_dir) / "model.joblib")
