"""Datasets: rows from a source, cleaned, transformed, checked and split, as an immutable, numbered version.

`builder` is the way in. What it is told to do: `steps` and `transforms` change the rows, `schema` checks them (`bounds`
compares values), `splits` is the rule and `splitters` are its runs. How rows become files: `spool` keeps them until all
were seen, `writing` makes the parts, `staging` is where. `columns` says which types columns have, `hashing` is what
splits by key and duplicates stand on. `dataset` is what comes out; `store` finds it again.
"""

from __future__ import annotations

from smkit.datasets.builder import DatasetBuilder
from smkit.datasets.dataset import Dataset, DatasetSplit
from smkit.datasets.schema import Column, Schema, Violation
from smkit.datasets.store import DatasetStore

__all__ = ["Column", "Dataset", "DatasetBuilder", "DatasetSplit", "DatasetStore", "Schema", "Violation"]
