"""A channel's files, read into one frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from smkit.entrypoint.errors import ScriptError
from smkit.entrypoint.frames import dtype_name, read_json_lines

if TYPE_CHECKING:
    import pandas as pd


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file as pandas does, but the same under every pandas: exact floats, types from the whole file."""
    import pandas as pd

    version = tuple(int(part) for part in pd.__version__.split(".")[:2])
    compression: Any = "gzip" if path.name.lower().endswith(".gz") else None
    # From 3.1 floats are exact by default and the argument is deprecated, pandas pull request 64666.
    precision: Any = "round_trip" if version < (3, 1) else None
    frame: pd.DataFrame = pd.read_csv(path, float_precision=precision, low_memory=False, compression=compression)
    # Before 1.4 round_trip leaves numbers with blanks around them as text, pandas issue 43713.
    for column in frame.columns if version < (1, 4) else ():
        if dtype_name(frame[column]) == "string":
            frame[column] = frame[column].astype(float, errors="ignore")
    return frame


def _read_file(path: Path) -> pd.DataFrame:
    import pandas as pd

    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return _read_csv(path)
    if name.endswith((".parquet", ".pq")):
        import pyarrow as pa

        # From an open file: newer pyarrow makes columns of `key=value` folders in a path, older ones do not.
        # Arrow's own: its threads may let go of a file of Python's when the script ends, which aborts it
        # ("terminate called without an active exception", https://github.com/apache/arrow/issues/36389).
        with pa.OSFile(str(path)) as file:
            return pd.read_parquet(file)
    return read_json_lines(path.read_text(encoding="utf-8"))


def read_files(path: Path, channel: str) -> pd.DataFrame:
    """Read and stack every data file in a folder and its subfolders, in the order of their paths."""
    import pandas as pd

    suffixes = (".csv", ".csv.gz", ".parquet", ".pq", ".jsonl", ".ndjson")
    relative = (
        sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file()) if path.is_dir() else [Path()]
    )
    visible = [path / file for file in relative if not any(part.startswith(".") for part in file.parts)]
    files = [file for file in visible if file.name.lower().endswith(suffixes)]
    if not files:
        found = ", ".join(file.name for file in visible[:5]) or "nothing"
        raise ScriptError(f"channel {channel!r}: no {', '.join(suffixes)} file in {path}; found {found}")
    frames: list[pd.DataFrame] = []
    for file in files:
        try:
            frame = _read_file(file)
        except UnicodeDecodeError as error:
            raise ScriptError(
                f"channel {channel!r}: cannot read {file}: it is not UTF-8 ({error}). Convert it: "
                f"`iconv -f ISO-8859-1 -t UTF-8`, with the encoding that it has; or override load_channel"
            ) from error
        except (ValueError, OSError, EOFError) as error:
            raise ScriptError(f"channel {channel!r}: cannot read {file}: {error}") from error
        if frames and set(frame.columns) != set(frames[0].columns):
            first, other = list(frames[0].columns), list(frame.columns)
            raise ScriptError(f"channel {channel!r}: {file} has the columns {other}, but {files[0]} has {first}")
        frames.append(frame)
    # A frame without rows has no dtypes worth keeping.
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        raise ScriptError(f"channel {channel!r}: no rows in {path}")
    return pd.concat(filled, ignore_index=True)
