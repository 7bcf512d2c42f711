"""Rows of objects in Amazon S3."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from smkit.aws import split_s3_uri
from smkit.config import Settings
from smkit.errors import ConfigError, SourceNotFound
from smkit.sources._formats import check_column_types, check_csv, check_format, make_format
from smkit.sources._multifile import open_files
from smkit.sources._s3_object import S3Object, s3_errors
from smkit.sources.base import Stream, StreamedSource
from smkit.sources.file import check_columns, is_data, one_format, options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa


class S3Source(StreamedSource):
    """The rows of CSV, Parquet or JSON lines objects, in the order of their keys.

    Formats and types are those of `FileSource`. Parquet is read by range, the text formats in one request an object; a
    connection that breaks off is resumed, and an object that changes meanwhile is an error.

    Args:
        uri: `s3://bucket/key` of an object, or of a prefix: then every object below `<key>/` whose extension is one of
            data, but for empty ones and for names that start with `_` or `.`.
        format: `"csv"`, `"parquet"` or `"jsonl"`, where the extension does not say it.
        column_types: Types that inference from the first rows would get wrong, as pyarrow types or their names:
            `{"zip": "string"}`.
        columns: The columns to read, in this order; default: all.
        delimiter: What separates the values of CSV: one ASCII character, such as `";"` or a tab.
        encoding: The encoding of CSV, a name that Python knows: `"gb18030"`, `"latin-1"`, `"utf-16"`.
        settings: Region and credentials; default: `Settings()`, made on the first read.

    Raises:
        ConfigError: `uri` is not one of S3, `format`, `columns`, a column type, `delimiter` or `encoding` is none, or
            one of the last two is given for another format.
    """

    def __init__(
        self,
        uri: str,
        *,
        format: str | None = None,  # noqa: A002 - the word that pandas and pyarrow use
        column_types: Mapping[str, pa.DataType | str] | None = None,
        columns: Sequence[str] | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8",
        settings: Settings | None = None,
    ) -> None:
        if not isinstance(uri, str):
            fix = "FrameSource(frame)" if hasattr(uri, "columns") else "FileSource(path) for files of this machine"
            raise ConfigError(f"S3Source needs a URI such as 's3://bucket/key', not {type(uri).__name__}: use {fix}")
        self._bucket, self._key = split_s3_uri(uri)
        self._uri = uri
        self._format = check_format(format)
        self._column_types = check_column_types(column_types)
        self._columns = check_columns(columns)
        self._csv = check_csv(delimiter, encoding, self._format)
        self._settings = settings

    def __repr__(self) -> str:
        return f"S3Source({self._uri!r})"

    def describe(self) -> dict[str, Any]:
        """Return the URI, and each object's key, size in bytes and ETag.

        Raises:
            SourceNotFound: No object matches.
            SourceError: S3 refused.
        """
        objects = self._objects()
        format_ = one_format(self._format, objects)
        return {
            "type": "s3",
            "uri": self._uri,
            "format": format_,
            **options(self._columns, self._column_types, self._csv if format_ == "csv" else None),
            "objects": [{"key": found.key, "size": found.size, "etag": found.etag} for found in objects],
        }

    @contextmanager
    def _open(self, batch_size: int) -> Iterator[Stream]:
        objects = self._objects()
        yield open_files(
            objects,
            make_format(one_format(self._format, objects), self._csv),
            columns=self._columns,
            column_types=self._column_types,
            batch_size=batch_size,
        )

    def _client(self) -> Any:
        if self._settings is None:
            self._settings = Settings()
        return self._settings.client("s3")

    def _objects(self) -> list[S3Object]:
        refused: ClientError | None = None
        with s3_errors(self._uri):
            client = self._client()
            if self._key and not self._key.endswith("/"):
                try:
                    head = client.head_object(Bucket=self._bucket, Key=self._key)
                    return [self._object(client, self._key, head["ContentLength"], head["ETag"])]
                except ClientError as error:
                    # A missing key is 403 to who may not list the bucket; a HEAD's answer has no body to say more.
                    if error.response["ResponseMetadata"]["HTTPStatusCode"] not in {403, 404}:
                        raise
                    refused = error
            objects = self._below_prefix(client)
            if not objects and refused is not None and refused.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
                raise refused
        if not objects:
            raise SourceNotFound(
                f"{self._uri}: neither an object nor a prefix with data objects "
                f"({'.csv, .parquet, .jsonl' if self._format is None else self._format}) below it"
            )
        return objects

    def _below_prefix(self, client: Any) -> list[S3Object]:
        prefix = f"{self._key.rstrip('/')}/" if self._key.strip("/") else ""
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        objects = [
            self._object(client, item["Key"], item["Size"], item["ETag"])
            for page in pages
            for item in page.get("Contents", ())
            if item["Size"] and is_data(item["Key"][len(prefix) :], self._format)
        ]
        return sorted(objects, key=lambda found: found.key)

    def _object(self, client: Any, key: str, size: int, etag: str) -> S3Object:
        return S3Object(client=client, bucket=self._bucket, key=key, size=size, etag=etag)
