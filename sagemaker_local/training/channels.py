"""Input channels: from S3 into `/opt/ml/input/data/<channel>` before the container starts (File; FastFile likewise)."""

from __future__ import annotations

import threading
from typing import Any

from sagemaker_local import s3
from sagemaker_local.context import Context
from sagemaker_local.input_files import find_files
from sagemaker_local.mlroot import MlRoot


def channel_config(channels: list[dict[str, Any]], job_mode: str) -> dict[str, Any]:
    """`inputdataconfig.json`: what each channel is, as the container is told."""
    config = {}
    for channel in channels:
        source = channel["DataSource"]["S3DataSource"]
        entry = {
            "TrainingInputMode": channel.get("InputMode", job_mode),
            "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        }
        if "ContentType" in channel:
            entry["ContentType"] = channel["ContentType"]
        config[channel["ChannelName"]] = entry
    return config


def download_channels(
    ctx: Context, root: MlRoot, channels: list[dict[str, Any]], role: str, cancelled: threading.Event
) -> None:
    """Fetch every channel. With one instance ShardedByS3Key is the whole of it.

    Raises:
        s3.DataError: S3 refuses a channel's data, it is not there, or would be written outside its folder.
        s3.OutageError: S3 did not answer for as long as the service waits.
        s3.Cancelled: `cancelled` was set.
    """
    for channel in channels:
        source = channel["DataSource"]["S3DataSource"]
        bucket, files = find_files(ctx, source["S3DataType"], source["S3Uri"], role, cancelled)
        s3.download(ctx, bucket, files, root.channel(channel["ChannelName"]), cancelled)
