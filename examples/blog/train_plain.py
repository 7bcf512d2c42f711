import argparse
import os
from pathlib import Path

import joblib
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_squared_error

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", type=str, default=os.environ.get("SM_CHANNEL_TRAIN"))
    parser.add_argument("--model-dir", type=str, default=os.environ.get("SM_MODEL_DIR"))
    args = parser.parse_args()

    data = pd.concat(pd.read_csv(file) for file in sorted(Path(args.train).glob("*.csv")))
    X = data[["X1", "X2"]]
    y = data["y"]

    model = LinearRegression()
    model.fit(X, y)

    mse = mean_squared_error(y, model.predict(X))
    print("Mean squared error:", mse)

    joblib.dump(model, Path(args.model_dir) / "model.joblib")
