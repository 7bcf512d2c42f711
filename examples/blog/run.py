"""The flow of the blog post that smkit began with: synthetic data, a linear regression, its mean squared error.

python examples/blog/run.py              # the plain script, as the post has it
python examples/blog/run.py --template   # the same on smkit's training template
python examples/blog/run.py --sandbox    # either on SageMaker's training API, played by this machine (smkit[sandbox])
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import smkit

HERE = Path(__file__).parent


def make_data(rows: int = 1000, seed: int = 0) -> pd.DataFrame:
    """y = X1 + X2 + noise."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"X1": random.uniform(size=rows), "X2": random.uniform(size=rows)})
    return frame.assign(y=frame["X1"] + frame["X2"] + random.normal(scale=0.1, size=rows))


def train(settings: smkit.Settings, *, template: bool) -> None:
    dataset = (
        smkit.DatasetBuilder("blog", smkit.FrameSource(make_data()), settings)
        .split(test=0.2)
        .build(format="csv")  # the plain script reads CSV
    )
    runner = smkit.JobRunner(settings)
    if template:
        job = runner.run(HERE / "train.py", dataset)
    else:
        # A script that prints its metrics its own way: say how to read them.
        job = runner.run(
            HERE / "train_plain.py",
            dataset,
            metric_definitions={"mse": r"Mean squared error: ([0-9.]+)"},
        )

    models = smkit.ArtifactStore(settings)
    version = models.publish("blog", job)
    model = models.load(version, allow_pickle=True)
    print(f"{version.ref}: y = {model.coef_[0]:.3f} X1 + {model.coef_[1]:.3f} X2 + {model.intercept_:.3f}")
    for name, value in sorted(version.metrics.items()):
        print(f"  {name} = {value:.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the blog's linear regression")
    parser.add_argument("--template", action="store_true", help="use smkit's training template")
    parser.add_argument("--sandbox", action="store_true", help="run the job as SageMaker would, with no AWS account")
    arguments = parser.parse_args()
    if not arguments.sandbox:
        train(smkit.Settings(), template=arguments.template)
        return
    from smkit.testing import sandbox

    with sandbox() as sagemaker:
        train(sagemaker.settings(backend="sagemaker"), template=arguments.template)


if __name__ == "__main__":
    main()
