"""The stores."""

from tests.storage.fixtures import (  # noqa: F401 - fixtures are used by name
    atomic_s3,
    folder_store,
    no_backoff,
    proxied,
    proxy,
    s3_client,
    s3_store,
    s3_uri,
    store,
)
