"""S3 in MiniStack: bodies of object versions on disk only."""

from __future__ import annotations

from typing import Any

from embedded.patches.checks import replaceable


def keep_versions_on_disk(storage: Any) -> None:
    """Leave the body out of an object version's entry in memory; MiniStack finds it on disk, as after a restart."""
    make_entry = replaceable(storage, "_version_entry_from_record", ("obj", "version_id", "data"))
    replaceable(storage, "_version_body", ("bucket", "bucket_name", "key", "v"))

    def version_entry_from_record(obj: dict[str, Any], version_id: str, data: bytes | None) -> Any:
        return make_entry(obj, version_id, None if storage.S3_PERSIST else data)

    storage._version_entry_from_record = version_entry_from_record
