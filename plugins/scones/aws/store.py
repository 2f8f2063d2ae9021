"""Small JSON documents in S3."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.config import Config
from botocore.exceptions import ClientError

from scones.defaults import AWS_CONN_ID

if TYPE_CHECKING:
    from collections.abc import Iterator


class ObjectStore:
    """One bucket, through the Airflow connection."""

    def __init__(self, bucket: str, aws_conn_id: str | None = AWS_CONN_ID, client: Any = None) -> None:
        self.bucket = bucket
        self._hook = S3Hook(aws_conn_id=aws_conn_id) if client is None else None
        self.client = self._hook.conn if self._hook is not None else client

    def presigning(self) -> tuple[Any, bool | str]:
        """A client whose presigned URLs carry Signature Version 4, and what it verifies TLS certificates with.

        Buckets made since 2020 and objects under KMS refuse the older signature, boto3's default in some regions.
        """
        if self._hook is None:
            return self.client, True
        verify = True if self._hook.verify is None else self._hook.verify
        config = self.client.meta.config.merge(Config(signature_version="s3v4"))
        session = self._hook.get_session(region_name=self.client.meta.region_name)
        url = self.client.meta.endpoint_url
        return session.client("s3", endpoint_url=url, config=config, verify=verify), verify

    def read(self, key: str) -> bytes | None:
        """Return an object's bytes, or None when there is none."""
        try:
            body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        return body

    def read_json(self, key: str) -> dict[str, Any] | None:
        """Return a JSON object, or None when there is no such key."""
        body = self.read(key)
        if body is None:
            return None
        document: dict[str, Any] = json.loads(body)
        return document

    def write_json(self, key: str, document: Any) -> str:
        """Write a JSON document; return its s3:// address."""
        body = json.dumps(document, indent=2, sort_keys=True, default=str).encode()
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType="application/json")
        return f"s3://{self.bucket}/{key}"

    def exists(self, key: str) -> bool:
        """Return whether there is such a key."""
        try:
            self.client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "NotFound", "404"):
                return False
            raise
        return True

    def objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Yield {"Key", "Size", "LastModified", ...} under a prefix, over all pages."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            yield from page.get("Contents", [])
