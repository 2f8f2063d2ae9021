"""What arrives in the stack's bucket reaches the queue, as on AWS: S3's event, EventBridge's rule, SQS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scones.aws.queue import ArrivalQueue
from scones.batch.arrivals import Post

MULTIPART_BYTES = 5 * 1024 * 1024
ODD = "incoming/a b+ü%20.png"


@pytest.mark.usefixtures("aws_connection")
def test_every_way_to_write_an_object_below_the_prefix_is_told_once(
    stack: dict[str, str], aws: Callable[..., Any]
) -> None:
    s3, bucket = aws("s3"), stack["BucketName"]
    queue = ArrivalQueue(stack)
    s3.put_object(Bucket=bucket, Key=ODD, Body=b"one")
    s3.put_object(Bucket=bucket, Key="elsewhere/incoming/2.png", Body=b"two")
    s3.copy_object(
        Bucket=bucket, Key="incoming/2.png", CopySource={"Bucket": bucket, "Key": "elsewhere/incoming/2.png"}
    )
    upload = s3.create_multipart_upload(Bucket=bucket, Key="incoming/3.png")["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(
                Bucket=bucket, Key="incoming/3.png", UploadId=upload, PartNumber=number, Body=b"3" * MULTIPART_BYTES
            )["ETag"],
        }
        for number in (1, 2)
    ]
    s3.complete_multipart_upload(Bucket=bucket, Key="incoming/3.png", UploadId=upload, MultipartUpload={"Parts": parts})
    s3.delete_object(Bucket=bucket, Key="incoming/2.png")

    received = queue.receive(100)
    post = Post.read((body for _, body in received), bucket)
    assert (post.messages, post.unreadable, post.repeated) == (3, 0, 0)
    there = {key: s3.head_object(Bucket=bucket, Key=key)["ETag"].strip('"') for key in (ODD, "incoming/3.png")}
    told = dict(post.images)
    assert there == {key: told[key] for key in there}
    assert set(told) - set(there) == {"incoming/2.png"}

    assert queue.receive(100) == [], "who took the messages has them to himself"
    queue.delete([receipt for receipt, _ in received])
    left = aws("sqs").get_queue_attributes(QueueUrl=stack["ArrivalsQueueUrl"], AttributeNames=["All"])["Attributes"]
    assert left["ApproximateNumberOfMessages"] == left["ApproximateNumberOfMessagesNotVisible"] == "0"
