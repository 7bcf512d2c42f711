"""Sources: where rows come from.

`FrameSource` (a DataFrame), `FileSource` (files of this machine), `S3Source` (objects) and `PostgresSource` (a query)
all are a `Source`: anything with its four methods can stand in for them.
"""

from __future__ import annotations

from smkit.sources.base import Source
from smkit.sources.file import FileSource
from smkit.sources.frame import FrameSource
from smkit.sources.postgres import PostgresSource
from smkit.sources.s3 import S3Source

__all__ = ["FileSource", "FrameSource", "PostgresSource", "S3Source", "Source"]
