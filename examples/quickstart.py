"""From data to a versioned, loaded model, on this machine: no AWS account, no Docker.

    python examples/quickstart.py

Everything it makes lies in `.smkit/` of the working folder; delete that folder to start over.
"""

from pathlib import Path

from sklearn.datasets import load_diabetes

import smkit

TRAIN_SCRIPT = Path(__file__).with_name("train.py")


def main() -> None:
    settings = smkit.Settings()

    # 1. Data -> an immutable, versioned dataset. Building it again gives the same version.
    frame = load_diabetes(as_frame=True).frame
    dataset = (
        smkit.DatasetBuilder("diabetes", smkit.FrameSource(frame), settings)
        .clean(drop_missing=True, drop_duplicates=True)
        .check(smkit.Schema({"target": smkit.Column("float64", min=0), "bmi": smkit.Column("float64")}))
        .split(test=0.2)
        .build()
    )
    rows = ", ".join(f"{count} {split}" for split, count in dataset.rows.items())
    print(f"dataset      {dataset.ref}: {rows} rows")

    # 2. A training job: a fresh process that finds what a SageMaker container would give it.
    job = smkit.JobRunner(settings).run(TRAIN_SCRIPT, dataset, hyperparameters={"alpha": 0.5})
    print(f"job          {job.name}: {job.status}")

    # 3. The model -> an immutable version with its lineage, and an alias that names it.
    models = smkit.ArtifactStore(settings)
    version = models.publish("diabetes", job)
    models.promote(version, "production", why="quickstart")
    rmse, r2 = version.metrics["test:rmse"], version.metrics["test:r2"]
    print(f"model        {version.ref}: test rmse {rmse:.2f}, r2 {r2:.3f}")

    # 4. Load it by alias (its SHA-256 is checked first) and predict.
    model = models.load("diabetes@production", allow_pickle=True)
    test = dataset.read("test").head(3)
    predictions = model.predict(test.drop(columns="target"))
    pairs = zip(predictions, test["target"], strict=True)
    print("predictions  " + ", ".join(f"{value:.0f} (was {truth:.0f})" for value, truth in pairs))
    print(f"all of it    {settings.root}")


if __name__ == "__main__":
    main()
