"""What a deployment uploads: zipped functions and workflow definitions, named by content, in a bucket of their own."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from infrastructure.state_machines import distributed_map

ROOT = Path(__file__).resolve().parents[1]

# Template parameter -> folder under lambdas/.
FUNCTIONS = {
    "SerializeCodeKey": "serialize_image",
    "ClassifyCodeKey": "classify_image",
    "FilterCodeKey": "filter_inferences",
    "RecordCodeKey": "record_result",
}
_EPOCH = (1980, 1, 1, 0, 0, 0)


class DeploymentError(RuntimeError):
    """A deployment cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Artifact:
    """One object to upload: the template parameter that names it, its key and its content."""

    parameter: str
    key: str
    content: bytes


def zip_function(name: str) -> bytes:
    """Return the package of the function in lambdas/<name>/, with what all share."""
    sources = sorted((ROOT / "lambdas" / name).glob("*.py"))
    if not sources:
        raise DeploymentError(f"There is no Python file in lambdas/{name}")
    return pack([ROOT / "lambdas" / "common.py", *sources], ROOT)


def pack(sources: Iterable[Path], root: Path) -> bytes:
    """Return a zip of files under their paths from `root`; the same sources always give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as package:
        for source in sources:
            entry = zipfile.ZipInfo(source.relative_to(root).as_posix(), date_time=_EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            package.writestr(entry, source.read_bytes())
    return buffer.getvalue()


def definitions() -> dict[str, tuple[str, str]]:
    """The workflows in Amazon States Language: template parameter -> name and text."""
    text = (ROOT / "stepfunction.json").read_text()
    many = distributed_map(json.loads(text))
    return {
        "WorkflowDefinitionKey": ("stepfunction", text),
        "DistributedMapDefinitionKey": ("distributed-map", json.dumps(many, indent=2)),
    }


def artifacts(partition: str = "aws") -> Iterator[Artifact]:
    """Every artifact of the working tree, its key made of its content.

    Args:
        partition: AWS's part of the world, by which the services are named that a workflow calls: ``aws-cn``, ...
    """
    for parameter, name in FUNCTIONS.items():
        content = zip_function(name)
        yield Artifact(parameter, f"code/{name}-{_digest(content)}.zip", content)
    for parameter, (name, text) in definitions().items():
        content = text.replace("arn:aws:states:::", f"arn:{partition}:states:::").encode()
        yield Artifact(parameter, f"definitions/{name}-{_digest(content)}.json", content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def bucket_exists(s3: Any, bucket: str) -> bool:
    """Tell whether this account has the bucket.

    Raises:
        DeploymentError: it belongs to somebody else, or may not be looked at.
    """
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 404:
            return False
        raise DeploymentError(
            f"The bucket {bucket!r} cannot be used ({status}): it belongs to another account, or these credentials "
            "lack s3:ListBucket on it. Choose another --stack-name, or other credentials."
        ) from error
    return True


def ensure_bucket(s3: Any, bucket: str, region: str) -> None:
    """Make the artifacts bucket, private and encrypted, if it does not exist; set its protections in any case."""
    if not bucket_exists(s3, bucket):
        # us-east-1 is the one region that S3 does not take as a constraint.
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=bucket, **where)
    s3.put_public_access_block(
        Bucket=bucket,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    s3.put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    arn = f"arn:{s3.meta.partition}:s3:::{bucket}"
    s3.put_bucket_policy(
        Bucket=bucket,
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Sid": "TlsOnly",
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": "s3:*",
                        "Resource": [arn, f"{arn}/*"],
                        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                    }
                ],
            }
        ),
    )


def upload(s3: Any, bucket: str, artifact: Artifact) -> bool:
    """Upload an artifact unless the bucket has it. Returns whether it was uploaded."""
    try:
        s3.head_object(Bucket=bucket, Key=artifact.key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        s3.put_object(Bucket=bucket, Key=artifact.key, Body=artifact.content)
        return True
    return False


def empty_bucket(s3: Any, bucket: str) -> int:
    """Delete every version of every object. Returns how many versions and delete markers were deleted."""
    deleted = 0
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if not found:
            continue
        objects = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        if errors := answer.get("Errors"):
            raise DeploymentError(f"{len(errors)} objects of {bucket!r} could not be deleted, the first: {errors[0]}")
        deleted += len(objects)
    return deleted
