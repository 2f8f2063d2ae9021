"""The objects an S3 data source names, and where each goes below the container's directory."""

from __future__ import annotations

import json
import threading

from sagemaker_local import s3
from sagemaker_local.context import Context

SERVED_TYPES = ("S3Prefix", "ManifestFile")


def find_files(
    ctx: Context, data_type: str, uri: str, role: str | None, cancelled: threading.Event | None
) -> tuple[str, dict[str, str]]:
    """`(bucket, {key: relative path})` of an S3Prefix or a ManifestFile.

    Raises:
        s3.DataError: `uri` is no S3 URI, S3 refuses it, nothing is there, or the manifest is malformed or lists no
            keys.
        s3.OutageError: S3 did not answer for as long as the service waits.
        s3.Cancelled: `cancelled` was set.
    """
    if data_type == "ManifestFile":
        return _manifest_files(ctx, uri, cancelled)
    bucket, prefix = s3.split_uri(uri)
    files = s3.under_prefix(s3.list_keys(ctx, bucket, prefix, cancelled), prefix)
    if not files:
        raise s3.DataError(no_objects(uri, ctx.config.region, role, bucket))
    return bucket, files


def no_objects(uri: str, region: str, role: str | None, bucket: str) -> str:
    """AWS's text for a data source with nothing in it."""
    return (
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket exists in '
        f'the selected region ({region}), that objects exist under that S3 prefix, and that the role "{role}" has '
        f'"s3:ListBucket" permissions on bucket "{bucket}".'
    )


def _manifest_files(ctx: Context, uri: str, cancelled: threading.Event | None) -> tuple[str, dict[str, str]]:
    prefix, relative = parse_manifest(s3.get_bytes(ctx, uri, cancelled), uri)
    bucket, start = s3.split_uri(prefix)
    return bucket, {start + key: key for key in relative}


def parse_manifest(text: bytes, uri: str) -> tuple[str, list[str]]:
    """A ManifestFile, `[{"prefix": "s3://b/p/"}, "a", "b/c"]`, as prefix and relative keys.

    Raises:
        s3.DataError: it is not of that form, or lists no keys.
    """
    try:
        first, *relative = json.loads(text)
        prefix = str(first["prefix"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise s3.DataError(f'{uri} is not a manifest of the form [{{"prefix": "s3://..."}}, "key", ...]') from error
    if not relative or not all(isinstance(key, str) for key in relative):
        raise s3.DataError(f"{uri} lists no keys after its prefix")
    return prefix, relative
