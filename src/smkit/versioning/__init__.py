"""The commit protocol: numbered, immutable versions of named things, on an `ObjectStore`.

::

    <kind>/<name>/data/<publish id>/...            the files; no other version has their keys
    <kind>/<name>/versions/<10^10 - n>.json        the manifest is the commit; the newest lists first
    <kind>/<name>/aliases/<alias>/<10^10 - g>.json an append-only log
    <kind>/<name>/prunes/<10^10 - n>/<nonce>.json  somebody is about to prune the version
    <kind>/<name>/tombstones/<10^10 - n>.json      the version was pruned
    <kind>/<name>/segments/<size>-<n>-<keys>.json  summaries of `size` versions up to n; may be deleted

To publish is to upload the files under a fresh publish id, then to put the manifest of the next number if it is absent.
A crash before that leaves an invisible orphan, after it a whole version. `manifest` is the stored form, `versions` the
log of versions, `publishing` the way into it, `aliases` the log of each alias, `pruning` what was pruned, `records` the
writing of one record, `segments` what makes a long list cheap, `reading` the verified reading of files, `cache` what
this machine keeps of a remote store, `maintenance` the search for damage and for what nobody needs.
"""

from __future__ import annotations

from smkit.storage.base import RemoteObject
from smkit.versioning.aliases import AliasLog, AliasRecord
from smkit.versioning.manifest import Manifest, StoredFile
from smkit.versioning.publishing import PendingFile
from smkit.versioning.segments import Summary
from smkit.versioning.versions import VersionLog

__all__ = ["AliasLog", "AliasRecord", "Manifest", "PendingFile", "RemoteObject", "StoredFile", "Summary", "VersionLog"]
