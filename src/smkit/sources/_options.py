"""What a caller wants of files, wherever they are: checked once, and described once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from smkit.errors import ConfigError, SourceFormatError
from smkit.sources._filters import check_filters, describe_filters
from smkit.sources._formats import FORMATS, check_column_types, check_csv, check_format, format_of
from smkit.sources._partitions import check_partitioning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

    from smkit.sources._csv_text import CsvOptions
    from smkit.sources._datafile import DataFile
    from smkit.sources._filters import Condition, Filters


@dataclass(frozen=True)
class ReadOptions:
    """What is wanted of the files.

    Args:
        format: The format that the caller gave; default: what the extensions say.
        column_types: Types that the caller declares.
        columns: The wanted columns in the wanted order; default: all, in the order of the first file.
        filters: Which rows are wanted: those that fulfil all conditions of one of these; where there are none, all.
        csv: How CSV files are written.
        partitioning: `"hive"` where the names of folders are columns.
        inferred: The columns of `column_types` whose types were found, not declared.
    """

    format: str | None
    column_types: dict[str, pa.DataType]
    columns: list[str] | None
    filters: list[list[Condition]]
    csv: CsvOptions
    partitioning: str | None = None
    inferred: frozenset[str] = frozenset()

    @classmethod
    def checked(
        cls,
        *,
        format_: str | None,
        column_types: Mapping[str, pa.DataType | str] | None,
        columns: Sequence[str] | None,
        filters: Filters | None,
        delimiter: str,
        encoding: str,
        partitioning: str | None,
    ) -> ReadOptions:
        """Check what the caller gave.

        Raises:
            ConfigError: An option is none.
        """
        return cls(
            check_format(format_),
            check_column_types(column_types),
            _check_columns(columns),
            check_filters(filters),
            check_csv(delimiter, encoding, format_),
            check_partitioning(partitioning),
        )

    def format_of(self, files: Iterable[DataFile]) -> str:
        """Return the format of all files.

        Raises:
            SourceFormatError: The extensions do not say it, or say several.
        """
        if self.format is not None:
            return self.format
        first: dict[str | None, str] = {}
        for file in files:
            first.setdefault(format_of(file.name), file.name)
        if None in first:
            raise SourceFormatError(
                f"{first[None]}: the extension says no format: pass format=, one of {', '.join(FORMATS)}"
            )
        if len(first) > 1:
            seen = ", ".join(f"{format_} ({name})" for format_, name in first.items())
            raise SourceFormatError(
                f"files of several formats: {seen}: pass format= to read one of them, or a narrower path"
            )
        return cast("str", next(iter(first)))

    def is_data(self, name: str) -> bool:
        """Say whether a file below a folder holds rows, by its path there: hidden ones and other formats do not."""
        if any(part.startswith(("_", ".")) for part in name.split("/")):
            return False
        found = format_of(name)
        if self.format is None:
            return found is not None
        # The format was given: a name without any extension counts too.
        return found == self.format or (found is None and "." not in name.rpartition("/")[2])

    def describe(self, format_: str) -> dict[str, Any]:
        """Return, for the lineage, what the caller asked for beside the place."""
        return {
            "columns": self.columns,
            "column_types": {name: str(type_) for name, type_ in self.column_types.items()},
            **({"partitioning": self.partitioning} if self.partitioning else {}),
            **({"filters": describe_filters(self.filters)} if self.filters else {}),
            **({"delimiter": self.csv.delimiter, "encoding": self.csv.encoding} if format_ == "csv" else {}),
        }


def _check_columns(columns: Sequence[str] | None) -> list[str] | None:
    if columns is None:
        return None
    if isinstance(columns, str) or not columns or len(set(columns)) < len(columns):
        raise ConfigError(f"columns is {columns!r}, but must be a list of one or more different column names")
    return list(columns)
