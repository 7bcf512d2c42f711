"""Copies a job's checkpoints to S3 while it runs, and back before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smkit.aws import split_s3_uri
from smkit.errors import ObjectNotFound
from smkit.jobs.channels import S3Channel

if TYPE_CHECKING:
    from pathlib import Path


class Checkpoints:
    """The folder of one job's checkpoints and its copy on S3. Used by one thread.

    Args:
        client: An S3 client.
        uri: Where the copy is.
        folder: The folder.
    """

    def __init__(self, client: Any, uri: str, folder: Path) -> None:
        self._client = client
        self._uri = uri.rstrip("/") + "/"
        self._folder = folder
        self._copied: dict[Path, tuple[int, int]] = {}

    def restore(self) -> None:
        """Make the folder, with what is on S3."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            S3Channel(self._uri, lambda: self._client).download(self._folder)
        except ObjectNotFound:
            return
        for path in self._files():
            self._copied[path] = _state(path)

    def copy(self) -> None:
        """Copy the files that are new or changed; what the script deletes stays on S3."""
        bucket, prefix = split_s3_uri(self._uri)
        for path in self._files():
            try:
                state = _state(path)
                if self._copied.get(path) != state:
                    with path.open("rb") as file:
                        key = prefix + path.relative_to(self._folder).as_posix()
                        self._client.put_object(Bucket=bucket, Key=key, Body=file)
                    self._copied[path] = state
            except FileNotFoundError:  # noqa: PERF203 - a script renames its temporary files at any moment
                continue

    def _files(self) -> list[Path]:
        return [path for path in sorted(self._folder.rglob("*")) if path.is_file()]


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
