"""Datasets: rows from a source, cleaned, transformed, checked and split, as an immutable, numbered version.

`builder` is the way in. What it is told to do: `steps` and `transforms` change the rows, `schema` checks them (`bounds`
compares values), `appending` leaves out those that a version has already, `splits` is the rule and `splitters` are its
runs. How rows become files: `spool` keeps them until all were seen, `dividing` sends each to its split, `writing` makes
the parts, `staging` is where. `columns` says which types columns have, `hashing` is what splits by key, duplicates and
comparisons stand on.

`dataset` is what comes out, `parts` reads its files, `lineage` is what it was made from; `store` finds it again,
`listing` is all versions of one. What is known of a version: `profile` the values, `profiling` the pass over the rows,
`sketches` what it remembers. What differs between two: `diff` the values, `comparing` the passes. `display` shows both.
"""

from __future__ import annotations

from smkit.datasets.builder import DatasetBuilder
from smkit.datasets.dataset import Dataset, DatasetSplit
from smkit.datasets.diff import ColumnDrift, DatasetDiff
from smkit.datasets.lineage import Parent
from smkit.datasets.listing import DatasetVersions
from smkit.datasets.profile import ColumnProfile, DatasetProfile
from smkit.datasets.schema import Column, Schema, Violation
from smkit.datasets.store import DatasetStore

__all__ = [
    "Column",
    "ColumnDrift",
    "ColumnProfile",
    "Dataset",
    "DatasetBuilder",
    "DatasetDiff",
    "DatasetProfile",
    "DatasetSplit",
    "DatasetStore",
    "DatasetVersions",
    "Parent",
    "Schema",
    "Violation",
]
