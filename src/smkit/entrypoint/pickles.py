"""What a pickled model refers to."""

from __future__ import annotations

import contextlib
import pickle
import types
from typing import Any


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)


class _MainNames(pickle.Pickler):
    """Notes the classes and functions of `__main__`, which a pickle names instead of holding them."""

    def __init__(self) -> None:
        import numpy as np

        super().__init__(_Nowhere(), protocol=4)
        self.names: set[str] = set()
        self._array = np.ndarray

    def persistent_id(self, value: Any) -> str | None:
        if isinstance(value, (type, types.FunctionType)) and value.__module__ == "__main__":
            self.names.add(value.__qualname__)
        # The bulk of a model is numbers, which name nothing: leave them out.
        return "array" if type(value) is self._array and not value.dtype.hasobject else None


def names_of_main(model: Any) -> list[str]:
    """Name the classes and functions of the script itself that the model's pickle refers to.

    Their module is `__main__` in the pickle, which is another module in every other program.
    """
    pickler = _MainNames()
    # joblib has saved the model already: where a plain pickle stops short, what it found until then still counts.
    with contextlib.suppress(Exception):
        pickler.dump(model)
    return sorted(pickler.names)
