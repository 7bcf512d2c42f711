from sklearn.linear_model import LinearRegression

from smkit.entrypoint import TrainingScript


class LinearModel(TrainingScript):
    target = "y"

    def build_model(self):
        return LinearRegression()


model_fn, input_fn, predict_fn, output_fn = LinearModel.serving_functions()

if __name__ == "__main__":
    LinearModel.main()
