"""The template that a training script extends: hyperparameters, channels, metrics, the model folder and serving.

A tour, in the order of a run::

    arguments -> channels -> script -> metrics -> model_folder ... serving

`arguments` reads the command line and the environment; `hyperparameters` declares what may be there, `conversion` gives
it its type. `channels` reads the data files, `frames` chooses their columns. `script` is `TrainingScript`: the run, and
what may be overridden in it. `metrics` measures the fitted model, `model_folder` describes it, `pickles` looks for what
cannot be loaded elsewhere. `serving` reads requests and writes responses.

The same script runs by hand, under smkit's local backend and in SageMaker's scikit-learn images. There this one folder
lies beside the script, in a package smkit that holds nothing else. So it is written in Python 3.7, imports nothing else
of smkit, works with every pandas from 1.1 and scikit-learn from 0.23, and loads them only when data is read: `--help`
and a wrong hyperparameter are answered at once.

The names in `__all__` are public; the modules are not, and may change.
"""

from __future__ import annotations

from smkit.entrypoint.errors import ColumnError, ScriptError
from smkit.entrypoint.hyperparameters import NoHyperparameters, hyperparameter
from smkit.entrypoint.metrics import METRIC_LINE
from smkit.entrypoint.script import TrainingScript
from smkit.entrypoint.serving import LoadedModel

__all__ = ["METRIC_LINE", "LoadedModel", "ScriptError", "TrainingScript", "hyperparameter"]

# A pickle and a traceback name this package, not a module that may change.
for _importable in (ColumnError, LoadedModel, NoHyperparameters, ScriptError, TrainingScript, hyperparameter):
    _importable.__module__ = __name__
