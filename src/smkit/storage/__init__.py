"""Where bytes live: one small protocol, `ObjectStore`, on a folder and on S3.

The only primitive beyond get and list is put-if-absent; every promise about versions stands on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smkit.errors import ConfigError
from smkit.storage.base import Digest, ObjectInfo, ObjectStore
from smkit.storage.folder import FolderStore

if TYPE_CHECKING:
    from smkit.config import Settings

__all__ = ["Digest", "FolderStore", "ObjectInfo", "ObjectStore", "check_settings", "open_store"]


def check_settings(settings: Settings | None) -> Settings | None:
    """Return settings unchanged; None stands for those that are read on first use.

    Raises:
        ConfigError: They are no settings.
    """
    if settings is not None and not hasattr(settings, "root"):
        raise ConfigError(f"expected smkit.Settings, got {type(settings).__name__}")
    return settings


def open_store(settings: Settings) -> ObjectStore:
    """Return the store that `settings.root` names; nothing is read or created yet."""
    if settings.root.startswith("s3://"):
        from smkit.storage.s3 import S3Store

        return S3Store(settings.root, lambda: settings.client("s3"), kms_key=settings.kms_key)
    return FolderStore(settings.root)
