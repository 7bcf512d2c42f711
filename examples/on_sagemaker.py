"""The quickstart on SageMaker: the same script, the same lines, another backend.

    python examples/on_sagemaker.py           # in the sandbox: a training API on this machine, no AWS account
    python examples/on_sagemaker.py --real    # in your account: needs SMKIT_BUCKET and SMKIT_ROLE; costs a few cents

The sandbox needs `pip install "smkit[sandbox]"`.
"""

import argparse
from pathlib import Path

from sklearn.datasets import load_diabetes

import smkit

TRAIN_SCRIPT = Path(__file__).with_name("train.py")


def train(settings: smkit.Settings) -> None:
    # 1. The dataset goes to the bucket.
    frame = load_diabetes(as_frame=True).frame
    dataset = smkit.DatasetBuilder("diabetes", smkit.FrameSource(frame), settings).split(test=0.2).build()
    print(f"dataset      {dataset.uri}")

    # 2. What would go wrong is found before anything is paid for.
    runner = smkit.JobRunner(settings)
    spec = runner.spec(TRAIN_SCRIPT, dataset, hyperparameters={"alpha": 0.5}, timeout=600)
    report = runner.check(spec)
    print(report)
    report.raise_for_problems()

    # 3. The job: its log is shown as it comes. Ctrl-C leaves it running; runner.attach(name) comes back to it.
    job = runner.run(spec, check=False)  # just done; without that, run does it first
    result = job.result()
    print(f"job          {result.name}: {result.status}, billed for {result.billable_seconds} s")

    # 4. The model: copied inside S3, with its lineage.
    models = smkit.ArtifactStore(settings)
    version = models.publish("diabetes", job)
    models.promote(version, "production", why="the example")
    print(f"model        {version.ref}: test rmse {version.metrics['test:rmse']:.2f}")

    model = models.load("diabetes@production", allow_pickle=True)
    test = dataset.read("test").head(3)
    predictions = ", ".join(f"{value:.0f}" for value in model.predict(test.drop(columns="target")))
    print(f"predictions  {predictions}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="run in the account that the settings name")
    if parser.parse_args().real:
        train(smkit.Settings(backend="sagemaker"))
        return
    from smkit.testing import sandbox

    with sandbox() as sagemaker:
        train(sagemaker.settings(backend="sagemaker"))


if __name__ == "__main__":
    main()
