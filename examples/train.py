"""Predict the progress of diabetes, from scikit-learn's diabetes dataset."""

from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from smkit.entrypoint import TrainingScript, hyperparameter


class Diabetes(TrainingScript):
    target = "target"

    class Hyperparameters:
        alpha: float = hyperparameter(1.0, min=0, help="strength of the regularization")

    def build_model(self):
        return make_pipeline(StandardScaler(), Ridge(alpha=self.hyperparameters.alpha))


model_fn, input_fn, predict_fn, output_fn = Diabetes.serving_functions()

if __name__ == "__main__":
    Diabetes.main()
