"""Where a channel's data comes from: a file, a folder, S3, or whatever knows how to download itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from smkit.aws import split_s3_uri
from smkit.errors import ConfigError, InvalidNameError, ObjectNotFound, SourceNotFound, StorageError
from smkit.naming import check_channel, parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PARALLEL_DOWNLOADS = 8
_BLOCK_BYTES = 1 << 20


@runtime_checkable
class Channel(Protocol):
    """The data of one input channel. A split of a dataset is one too."""

    @property
    def uri(self) -> str:
        """Where the data lies: a path or an `s3://` URI."""

    def download(self, folder: Path) -> None:
        """Copy the data into an existing, empty folder. The copies belong to the job: it may change them."""

    def describe(self) -> dict[str, Any]:
        """Return what the lineage says of the data, as JSON; raise where there is no data."""


@dataclass(frozen=True)
class LocalChannel:
    """A file, or what is in a folder. Links are followed: the job gets the bytes they lead to."""

    path: Path

    @property
    def uri(self) -> str:
        """The absolute path."""
        return str(self.path)

    def download(self, folder: Path) -> None:
        """Copy the file, or what is in the folder."""
        for source, relative in self._files():
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            # Not copy2: a script may rewrite its copy even where the original is read-only.
            shutil.copyfile(source, target)

    def describe(self) -> dict[str, Any]:
        """Return the path, the number of files and their size in bytes.

        Raises:
            SourceNotFound: Nothing is there, or the folder holds no file.
        """
        sizes = [source.stat().st_size for source, _ in self._files()]
        if not sizes:
            raise SourceNotFound(f"the folder {self.path} holds no file: a channel needs at least one")
        return {"uri": self.uri, "files": len(sizes), "bytes": sum(sizes)}

    def _files(self) -> Iterator[tuple[Path, Path]]:
        if self.path.is_file():
            yield self.path, Path(self.path.name)
        elif self.path.is_dir():
            yield from _walk(self.path, Path(), (self.path.resolve(),))
        else:
            hint = f"; for a dataset pass inputs={_lookup(self.path.name)}" if _is_reference(self.path.name) else ""
            raise SourceNotFound(f"{self.path} does not exist: a channel is a file, a folder or an s3:// URI{hint}")


def _walk(folder: Path, relative: Path, ancestors: tuple[Path, ...]) -> Iterator[tuple[Path, Path]]:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path)
        if entry.is_dir():
            real = path.resolve()
            if real in ancestors:
                raise ConfigError(f"{path} links to a folder that holds it: the channel would never end")
            yield from _walk(path, relative / entry.name, (*ancestors, real))
        elif entry.is_file():
            yield path, relative / entry.name
        elif entry.is_symlink():
            raise SourceNotFound(f"{path} is a link to {path.readlink()}, which does not exist")
        else:
            raise ConfigError(f"{path} is neither a file nor a folder: a channel cannot hold it")


class _Object(NamedTuple):
    key: str
    relative: str
    size: int
    etag: str


@dataclass(frozen=True)
class S3Channel:
    """Every object whose key starts with the URI's key, as SageMaker's `S3Prefix` means it.

    `s3://b/data/train` takes `data/train/a.csv` (as `a.csv`), `data/train.csv` and `data/train2/b.csv` (as
    `train2/b.csv`); end the URI with `/` to take one folder only.

    Args:
        uri: The `s3://` URI.
        client: Returns the S3 client; called on first use.
    """

    uri: str
    client: Callable[[], Any] = field(repr=False, compare=False)

    def download(self, folder: Path) -> None:
        """Stream the objects to files; each must be the object that was listed.

        Raises:
            ObjectNotFound: No object matches.
            StorageError: S3 failed, or an object changed meanwhile.
        """
        objects = self._objects()
        self.client()
        with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
            futures = [pool.submit(self._fetch, item, folder) for item in objects]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def describe(self) -> dict[str, Any]:
        """Return the URI, the number of objects and their size in bytes; raises as `download` does."""
        objects = self._objects()
        return {"uri": self.uri, "files": len(objects), "bytes": sum(item.size for item in objects)}

    def _objects(self) -> list[_Object]:
        from smkit.aws_errors import AWS_ERRORS, explain_aws_error

        bucket, prefix = split_s3_uri(self.uri)
        objects = []
        try:
            for page in self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    # A console's "folder" is an empty object.
                    if not item["Key"].endswith("/"):
                        relative = _relative_key(item["Key"], prefix)
                        objects.append(_Object(item["Key"], relative, item["Size"], item["ETag"]))
        except AWS_ERRORS as error:
            raise StorageError(explain_aws_error(error, f"list {self.uri}")) from error
        if not objects:
            raise ObjectNotFound(f"no object's key starts with {self.uri}: check the bucket, the key and the region")
        _check_paths(self.uri, [item.relative for item in objects])
        return objects

    def _fetch(self, item: _Object, folder: Path) -> None:
        from smkit.aws_errors import AWS_ERRORS, explain_aws_error

        bucket, _ = split_s3_uri(self.uri)
        source = f"s3://{bucket}/{item.key}"
        target = folder / item.relative
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            body = self.client().get_object(Bucket=bucket, Key=item.key, IfMatch=item.etag)["Body"]
            with body, target.open("wb") as file:
                shutil.copyfileobj(body, file, _BLOCK_BYTES)
                size = file.tell()
        except AWS_ERRORS as error:
            raise StorageError(explain_aws_error(error, f"read {source}")) from error
        if size != item.size:
            raise StorageError(f"{source}: got {size} bytes of {item.size}; try again")


def _relative_key(key: str, prefix: str) -> str:
    folder = prefix if prefix.endswith("/") or not prefix else prefix + "/"
    if key.startswith(folder):
        return key[len(folder) :]
    return key[prefix.rfind("/") + 1 :]


def _check_paths(uri: str, paths: list[str]) -> None:
    """Refuse keys that would leave the channel's folder, or that a folder cannot hold side by side."""
    seen: set[str] = set()
    for path in paths:
        if any(part in {"", ".", ".."} for part in path.split("/")) or "\0" in path:
            raise ConfigError(f"{uri}: the key that ends with {path!r} is not a path inside a folder")
        if path in seen:
            raise ConfigError(f"{uri}: two objects would both become the file {path!r}; end the URI with '/'")
        seen.add(path)
    for path in paths:
        if clash := next((str(up) for up in PurePosixPath(path).parents if str(up) in seen), None):
            raise ConfigError(f"{uri}: {clash!r} would be both a file and a folder")


def as_channels(inputs: object, s3_client: Callable[[], Any]) -> dict[str, Channel]:
    """Turn what a caller passes as `inputs` into channel name -> `Channel`; nothing is read.

    Args:
        inputs: None, a thing with `channels()` such as a dataset, or a mapping of channel name -> file, folder,
            `s3://` URI or `Channel`.
        s3_client: Returns the S3 client; called when S3 is first read.

    Raises:
        ConfigError: `inputs` or a value is none of these, or a channel's name breaks the rule.
    """
    if inputs is None:
        return {}
    if callable(give_channels := getattr(inputs, "channels", None)):
        inputs = give_channels()
    if isinstance(inputs, str) and _is_reference(inputs):
        raise ConfigError(f"inputs is a str: pass the dataset that it names, {_lookup(inputs)}")
    if not isinstance(inputs, Mapping):
        raise ConfigError(
            f"inputs is a {type(inputs).__name__}: "
            + (
                _how_to_build(inputs)
                or "pass a dataset, or a mapping such as {'train': 'data/train.csv'} whose values are files, folders, "
                "s3:// URIs or channels"
            )
        )
    channels = {check_channel(name): _as_channel(name, value, s3_client) for name, value in inputs.items()}
    folded: dict[str, str] = {}
    for name in channels:
        # SM_CHANNEL_<NAME> is upper-cased: of two such channels a script would see one.
        if (other := folded.setdefault(name.upper(), name)) != name:
            raise ConfigError(f"channels {other!r} and {name!r} differ in case only: SM_CHANNEL_{name.upper()} is one")
    return channels


def _as_channel(name: str, value: object, s3_client: Callable[[], Any]) -> Channel:
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if not isinstance(text, str):
            raise ConfigError(f"channel {name!r}: a path is text, not bytes")
        if text.lower().startswith("s3://"):
            split_s3_uri(text)
            return S3Channel(text, s3_client)
        if "://" in text:
            # The rest may hold a password.
            scheme = text.partition("://")[0]
            raise ConfigError(f"channel {name!r}: {scheme}:// is not supported: use a file, a folder or an s3:// URI")
        return LocalChannel(Path(text).expanduser().absolute())
    if isinstance(value, Channel):
        return value
    if callable(getattr(value, "channels", None)):
        how = f"pass the dataset itself as inputs, one channel per split, or one of its splits: dataset[{name!r}]"
    else:
        how = _how_to_build(value) or ("expected a file, a folder, an s3:// URI or a channel (uri, download, describe)")
    raise ConfigError(f"channel {name!r} is a {type(value).__name__}: {how}")


def _how_to_build(value: object) -> str:
    """Say how rows, which a job cannot be given, become a dataset, which it can; "" where the value holds no rows."""
    if callable(getattr(value, "build", None)):
        return "build the dataset first: inputs=builder.build()"
    # By what they can do: a job knows nothing of sources and data frames.
    if callable(getattr(value, "batches", None)):
        return "build a dataset first: smkit.DatasetBuilder('name', source).build()"
    if hasattr(value, "__array__") or hasattr(value, "__dataframe__"):
        return "build a dataset first: smkit.DatasetBuilder('name', smkit.FrameSource(frame)).build()"
    return ""


def _is_reference(text: str) -> bool:
    try:
        parse_reference(text, "dataset")
    except InvalidNameError:
        return False
    return "@" in text


def _lookup(reference: str) -> str:
    return f"smkit.DatasetStore().get({reference!r})"
