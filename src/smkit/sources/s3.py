"""Rows of objects in Amazon S3."""

from __future__ import annotations

import copy
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError

from smkit.aws import split_s3_uri
from smkit.config import Settings
from smkit.errors import ConfigError, SourceNotFound
from smkit.sources._files import FilesSource, check_distinct
from smkit.sources._globs import glob_pattern, literal_prefix
from smkit.sources._options import ReadOptions
from smkit.sources._s3_files import S3Files
from smkit.sources._s3_object import S3Object, s3_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa
    from typing_extensions import Self

    from smkit.sources._filters import Filters


class S3Source(FilesSource):
    """The rows of CSV, Parquet or JSON lines objects, in the order of their keys.

    Formats, types and filters are those of `FileSource`. Objects are read in ranges, several at once and ahead of their
    reader; of Parquet only those that are wanted. A connection that breaks off is resumed, and an object that changes
    meanwhile is an error.

    Args:
        uri: `s3://bucket/key` of an object, or of a prefix: then every object below `<key>/` whose extension is one of
            data, but for empty ones and for names that start with `_` or `.`. Or a glob such as
            `"s3://bucket/raw/2026-*.csv"`; `**` crosses folders. Or a list of such, read in the list's order.
        format: `"csv"`, `"parquet"` or `"jsonl"`, where the extension does not say it.
        column_types: Types that inference from the first rows would get wrong, as pyarrow types or their names:
            `{"zip": "string"}`.
        columns: The columns to read, in this order; default: all. Of Parquet, the others are not fetched.
        filters: The rows to read, as in `FileSource`: `[("price", ">", 0)]`. Of Parquet, row groups whose statistics
            rule them out are not fetched.
        delimiter: What separates the values of CSV: one ASCII character, such as `";"` or a tab.
        encoding: The encoding of CSV, a name that Python knows: `"gb18030"`, `"latin-1"`, `"utf-16"`.
        partitioning: `"hive"` makes columns of prefixes such as `year=2026/month=01/`, as in `FileSource`. Objects
            that `filters` on them rule out are not fetched. Default: the names of prefixes mean nothing.
        settings: Region and credentials; default: `Settings()`, made on the first read.

    Raises:
        ConfigError: `uri` is not one of S3; `format`, `columns`, a column type, a filter, `delimiter`, `encoding` or
            `partitioning` is none; or `delimiter` or `encoding` is given for another format than CSV.
    """

    _LISTED_AS = "objects"

    def __init__(
        self,
        uri: str | Sequence[str],
        *,
        format: str | None = None,  # noqa: A002 - the word that pandas and pyarrow use
        column_types: Mapping[str, pa.DataType | str] | None = None,
        columns: Sequence[str] | None = None,
        filters: Filters | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8",
        partitioning: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._several = isinstance(uri, (list, tuple))
        self._uris = [_check_uri(one) for one in (uri if self._several else [cast("str", uri)])]
        if not self._uris:
            raise ConfigError("S3Source got an empty list: pass at least one URI such as 's3://bucket/key'")
        self._settings = settings
        super().__init__(
            ReadOptions.checked(
                format_=format,
                column_types=column_types,
                columns=columns,
                filters=filters,
                delimiter=delimiter,
                encoding=encoding,
                partitioning=partitioning,
            )
        )

    def __repr__(self) -> str:
        return f"S3Source({self._shown_uri()!r})"

    def describe(self) -> dict[str, Any]:
        """Return the URI, and each object's key, size in bytes and ETag.

        Raises:
            SourceNotFound: No object matches.
            SourceError: S3 refused.
        """
        objects = self._find()
        format_ = self._options.format_of(S3Files(objects).files)
        buckets = {found.bucket for found in objects}
        return {
            "type": "s3",
            "uri": self._shown_uri(),
            "format": format_,
            **self._options.describe(format_),
            "objects": [
                {
                    **({"bucket": found.bucket} if len(buckets) > 1 else {}),
                    "key": found.key,
                    "size": found.size,
                    "etag": found.etag,
                }
                for found in objects
            ],
        }

    @property
    def settings(self) -> Settings | None:
        """The settings that were given or, once something was read, made."""
        return self._settings

    def with_settings(self, settings: Settings) -> Self:
        """Return this source, read with other settings."""
        other = copy.copy(self)
        other._settings = settings
        return other

    def _of_one_file(self, entry: Mapping[str, Any], options: ReadOptions) -> Self:
        one = copy.copy(self)
        one._several, one._options = False, options
        bucket = entry.get("bucket") or split_s3_uri(self._uris[0])[0]
        one._uris = [f"s3://{bucket}/{entry['key']}"]
        return one

    @contextmanager
    def _open_files(self) -> Iterator[S3Files]:
        with closing(S3Files(self._find())) as files:
            yield files

    def _shown_uri(self) -> str | list[str]:
        return self._uris if self._several else self._uris[0]

    def _client(self) -> Any:
        if self._settings is None:
            self._settings = Settings()
        return self._settings.client("s3")

    def _find(self) -> list[S3Object]:
        return check_distinct([found for uri in self._uris for found in self._find_at(uri)], "URIs")

    def _find_at(self, uri: str) -> list[S3Object]:
        bucket, key = split_s3_uri(uri)
        refused: ClientError | None = None
        with s3_errors(uri):
            client = self._client()
            if key and not key.endswith("/"):
                try:
                    head = client.head_object(Bucket=bucket, Key=key)
                    return [S3Object(client, bucket, key, head["ContentLength"], head["ETag"])]
                except ClientError as error:
                    # A missing key is 403 to who may not list the bucket; a HEAD's answer has no body to say more.
                    if error.response["ResponseMetadata"]["HTTPStatusCode"] not in {403, 404}:
                        raise
                    refused = error
            objects = self._below_prefix(client, bucket, key)
            if not objects and refused is not None and refused.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
                raise refused
        if not objects:
            wanted = self._options.format
            raise SourceNotFound(
                f"{uri}: neither an object nor a prefix with data objects "
                f"({'.csv, .parquet, .jsonl' if wanted is None else wanted}) below it"
                if glob_pattern(key) is None
                else f"{uri}: no object matches"
            )
        return objects

    def _below_prefix(self, client: Any, bucket: str, key: str) -> list[S3Object]:
        pattern = glob_pattern(key)
        folder = f"{key.rstrip('/')}/" if key.strip("/") else ""
        prefix = folder if pattern is None else literal_prefix(key)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        objects = [
            S3Object(client, bucket, item["Key"], item["Size"], item["ETag"])
            for page in pages
            for item in page.get("Contents", ())
            if (
                item["Size"] and self._options.is_data(item["Key"][len(prefix) :])
                if pattern is None
                else pattern.fullmatch(item["Key"]) and not item["Key"].endswith("/")
            )
        ]
        return sorted(objects, key=lambda found: found.key)


def _check_uri(uri: object) -> str:
    if not isinstance(uri, str):
        fix = "FrameSource(frame)" if hasattr(uri, "columns") else "FileSource(path) for files of this machine"
        raise ConfigError(f"S3Source needs a URI such as 's3://bucket/key', not {type(uri).__name__}: use {fix}")
    split_s3_uri(uri)
    return uri
