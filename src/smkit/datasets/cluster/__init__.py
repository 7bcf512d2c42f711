"""Building on a Dask cluster, with the result of a single machine.

The bytes of a dataset depend on its rows and their order alone. So the workers may do all that looks at one batch:
read, run the steps, encode and store the part files. What looks at all rows (duplicates, keys, splits) is decided here,
in the order of the rows, by the code that a single machine runs, from hashes or single columns that the workers send.

`units` divides a source, `tasks` is what the workers run, `stages` cuts the steps where all rows must be seen,
`rows` takes the rows through them, `parts` places and writes them.
"""

from __future__ import annotations

from smkit.datasets.cluster.building import build_on

__all__ = ["build_on"]
