"""In-memory stand-ins for what the operators and hooks call: SageMaker's control plane, its runtime, and a bucket."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from scones.evaluation.store import EvaluationStore
from scones.training.registry import ModelRegistryHook


def client_error(code: str, message: str, operation: str = "Operation", status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation
    )


class FakeSageMaker:
    """SageMaker's control plane, without time: tests set the states. Errors are worded as the service words them."""

    class exceptions:
        ClientError = ClientError

    class meta:
        endpoint_url = "http://127.0.0.1:4567"

    def __init__(self) -> None:
        self.things: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.clock = datetime(2026, 1, 1, tzinfo=UTC)

    def called(self, operation: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.calls if name == operation]

    def __getattr__(self, operation: str) -> Any:
        verb, _, kind = operation.partition("_")
        if verb not in ("describe", "create", "delete", "stop", "update", "associate"):
            raise AttributeError(operation)

        def call(**arguments: Any) -> dict[str, Any]:
            self.calls.append((operation, arguments))
            return getattr(self, f"_{verb}")(kind, arguments)

        return call

    @staticmethod
    def _name(kind: str, arguments: dict[str, Any]) -> str:
        member = "".join(word.capitalize() for word in kind.split("_")) + "Name"
        return str(arguments.get(member) or arguments.get(member.replace("Name", "Arn")) or "")

    def _find(self, kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        name = self._name(kind, arguments)
        if (kind, name) not in self.things:
            raise client_error("ValidationException", f"Could not find {kind} {name!r}.")
        return self.things[kind, name]

    def _describe(self, kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return dict(self._find(kind, arguments))

    def _create(self, kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        name = self._name(kind, arguments)
        self.clock += timedelta(seconds=1)
        body = {**arguments, "CreationTime": self.clock, "LastModifiedTime": self.clock}
        if kind == "model_package":
            version = 1 + len([1 for known, _ in self.things if known == kind])
            name = f"arn:aws:sagemaker:us-east-1:{'0' * 12}:model-package/scones-courier/{version}"
            body |= {"ModelPackageVersion": version, "ModelPackageArn": name}
        if (kind, name) in self.things:
            raise client_error("ValidationException", f"Cannot create already existing {kind} {name!r}.")
        if kind == "model":
            body["ModelArn"] = f"arn:model/{name}"
        if kind in ("training_job", "transform_job", "hyper_parameter_tuning_job"):
            body[kind.title().replace("_", "") + "Status"] = "InProgress"
            body[kind.title().replace("_", "") + "Arn"] = f"arn:{name}"
        if kind == "endpoint":
            body |= {"EndpointStatus": "Creating", "EndpointArn": f"arn:{name}"}
        self.things[kind, name] = body
        return {"ModelPackageArn": name}

    def _delete(self, kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._find(kind, arguments)
        del self.things[kind, self._name(kind, arguments)]
        return {}

    def _stop(self, kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._find(kind, arguments)[kind.title().replace("_", "") + "Status"] = "Stopping"
        return {}

    def _associate(self, kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._find("trial", arguments).setdefault("components", []).append(self._name(kind, arguments))
        return {}

    def _update(self, kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        thing = self._find(kind, arguments)
        if kind == "endpoint":
            thing["EndpointStatus"] = "Updating"
            thing["PendingDeploymentSummary"] = {"EndpointConfigName": arguments["EndpointConfigName"]}
        else:
            thing |= arguments
        return {}

    def list_tags(self, *, ResourceArn: str) -> dict[str, Any]:
        for (kind, _), body in self.things.items():
            if body.get(kind.title().replace("_", "") + "Arn") == ResourceArn:
                return {"Tags": body.get("Tags", [])}
        raise client_error("ValidationException", f"Could not find {ResourceArn!r}.")

    def finish_deployment(self, name: str, **changes: Any) -> None:
        """The endpoint settles: on the pending config unless told otherwise."""
        thing = self.things["endpoint", name]
        pending = thing.pop("PendingDeploymentSummary", {}).get("EndpointConfigName", thing["EndpointConfigName"])
        thing |= {"EndpointStatus": "InService", "EndpointConfigName": pending, **changes}

    def get_paginator(self, operation: str) -> Any:
        kinds = {
            "list_endpoints": ("endpoint", "Endpoints"),
            "list_endpoint_configs": ("endpoint_config", "EndpointConfigs"),
            "list_models": ("model", "Models"),
            "list_model_packages": ("model_package", "ModelPackageSummaryList"),
            "list_training_jobs_for_hyper_parameter_tuning_job": ("training_job", "TrainingJobSummaries"),
        }
        kind, member = kinds[operation]
        found = [body for (known, _), body in self.things.items() if known == kind]

        class Pages:
            @staticmethod
            def paginate(**_: Any) -> Iterator[dict[str, Any]]:
                newest_first = sorted(found, key=lambda body: body["CreationTime"], reverse=True)
                yield {member: newest_first[:2]}
                yield {member: newest_first[2:]}

        return Pages


class FakeRegistryHook(ModelRegistryHook):
    """The real hook's logic over the fake client."""

    aws_conn_id = "aws_default"

    def __init__(self, client: FakeSageMaker) -> None:
        self.client = client

    @property
    def conn(self) -> Any:
        return self.client


class FakeS3:
    """A bucket as a dict of key -> bytes, with S3's conditional writes; ``forbidden`` keys answer AccessDenied.

    ``archived`` keys are listed and described, and not read.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.modified: dict[str, datetime] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.forbidden: set[str] = set()
        self.archived: set[str] = set()

    def _check(self, key: str, absent: str) -> None:
        if key in self.forbidden:
            raise client_error("AccessDenied", key, status=403)
        if key not in self.objects:
            raise client_error(absent, key, status=404)

    @staticmethod
    def _etag(body: bytes) -> str:
        return f'"{hashlib.md5(body).hexdigest()}"'

    def put_object(
        self, *, Key: str, Body: bytes, IfMatch: str | None = None, IfNoneMatch: str | None = None, **_: Any
    ) -> dict[str, Any]:
        there = self.objects.get(Key)
        if (IfNoneMatch and there is not None) or (IfMatch and (there is None or self._etag(there) != IfMatch)):
            raise client_error("PreconditionFailed", Key, status=412)
        self.objects[Key] = Body
        return {"ETag": self._etag(Body)}

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:
        self._check(Key, "NoSuchKey")
        if Key in self.archived:
            raise client_error("InvalidObjectState", Key, status=403)
        body = self.objects[Key]
        return {
            "Body": StreamingBody(io.BytesIO(body), len(body)),
            "ETag": self._etag(body),
            "ContentLength": len(body),
        }

    def head_object(self, *, Key: str, **_: Any) -> dict[str, Any]:
        self._check(Key, "404")
        body = self.objects[Key]
        return {
            "Metadata": self.metadata.get(Key, {}),
            "ETag": self._etag(body),
            "ContentLength": len(body),
            "LastModified": self.modified.get(Key, datetime(2026, 1, 1, tzinfo=UTC)),
        }

    def delete_objects(self, *, Delete: dict[str, Any], **_: Any) -> dict[str, Any]:
        if len(Delete["Objects"]) > 1000:
            raise client_error("MalformedXML", "more than 1000 keys", status=400)
        keys = [item["Key"] for item in Delete["Objects"]]
        for key in set(keys) - self.forbidden:
            self.objects.pop(key, None)
        return {"Errors": [{"Key": key, "Code": "AccessDenied"} for key in keys if key in self.forbidden]}

    def get_paginator(self, _: str) -> Any:
        def paginate(*, Prefix: str, Delimiter: str = "", **_: Any) -> Iterator[dict[str, Any]]:
            below = [key for key in sorted(self.objects) if key.startswith(Prefix)]
            if Delimiter:
                heads = {
                    key[: key.index(Delimiter, len(Prefix)) + 1] for key in below if Delimiter in key[len(Prefix) :]
                }
                yield {"CommonPrefixes": [{"Prefix": head} for head in sorted(heads)]}
                return
            yield {
                "Contents": [
                    {
                        "Key": key,
                        "Size": len(body),
                        "ETag": self._etag(body),
                        "LastModified": self.modified.get(key, datetime(2026, 1, 1, tzinfo=UTC)),
                    }
                    for key in below
                    for body in [self.objects[key]]
                ]
            }

        return type("Pages", (), {"paginate": staticmethod(paginate)})


def store(bucket: str = "b", client: FakeS3 | None = None) -> EvaluationStore:
    return EvaluationStore(bucket, client=client or FakeS3())


class FakeRuntime:
    """An endpoint that answers from a table of image bytes."""

    def __init__(self, answers: dict[bytes, Any]) -> None:
        self.answers = answers
        self.requests: list[dict[str, Any]] = []

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        answer = self.answers[request["Body"]]
        return {"Body": io.BytesIO(answer if isinstance(answer, bytes) else json.dumps(answer).encode())}


class AsyncScript:
    """An aiobotocore-like client whose answers are scripted by operation; the last one repeats."""

    def __init__(self, **script: list[Any]) -> None:
        self.script = script
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, operation: str) -> Any:
        async def call(**arguments: Any) -> Any:
            self.calls.append((operation, arguments))
            answers = self.script[operation]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, BaseException):
                raise answer
            return answer(**arguments) if callable(answer) else answer

        return call

    def called(self, operation: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.calls if name == operation]

    def hook(self) -> Any:
        @asynccontextmanager
        async def connection() -> Any:
            yield self

        class Hook:
            @staticmethod
            async def get_async_conn() -> Any:
                return connection()

        return Hook()


class FakeScaling:
    """Application Auto Scaling with at most one target."""

    def __init__(self, known: bool = False, error: str = "") -> None:
        self.target: dict[str, int] | None = {"MinCapacity": 1, "MaxCapacity": 3} if known else None
        self.error = error
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def describe_scalable_targets(self, **_: Any) -> dict[str, Any]:
        if self.error:
            raise client_error(self.error, self.error)
        return {"ScalableTargets": [self.target] if self.target else []}

    def register_scalable_target(self, **arguments: Any) -> None:
        self.calls.append(("register_scalable_target", arguments))
        self.target = {name: arguments[name] for name in ("MinCapacity", "MaxCapacity")}

    def deregister_scalable_target(self, **arguments: Any) -> None:
        self.calls.append(("deregister_scalable_target", arguments))
        self.target = None

    def put_scaling_policy(self, **arguments: Any) -> None:
        self.calls.append(("put_scaling_policy", arguments))
