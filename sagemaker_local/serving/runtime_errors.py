"""SageMaker Runtime's errors in their wire form."""

from __future__ import annotations

import json
from typing import Any


class RuntimeServiceError(Exception):
    """An error answer of SageMaker Runtime; this base class is InternalFailure."""

    code = "InternalFailure"
    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def members(self) -> dict[str, Any]:
        """What the body says beside the message."""
        return {}

    def answer(self) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """HTTP status, headers and body."""
        body = json.dumps({"ErrorCode": self.code, "Message": self.message, **self.members()}).encode()
        headers = [(b"content-type", b"application/json"), (b"x-amzn-errortype", self.code.encode())]
        return self.status, headers, body


class ValidationError(RuntimeServiceError):
    """The request, or what it names, is wrong."""

    code = "ValidationError"
    status = 400


class ServiceUnavailable(RuntimeServiceError):
    """No instance can answer now."""

    code = "ServiceUnavailable"
    status = 503


class ModelError(RuntimeServiceError):
    """The model server answered something other than 2xx, or (status 0) nothing at all."""

    code = "ModelError"
    status = 424

    def __init__(self, *, status: int, message: str, region: str, account: str, group: str) -> None:
        kind = "client" if 400 <= status < 500 else "server"
        super().__init__(
            f'Received {kind} error ({status}) from primary with message "{message}". See '
            f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group} "
            f"in account {account} for more information."
        )
        self._members = {
            "OriginalStatusCode": status,
            "OriginalMessage": message,
            "LogStreamArn": f"arn:aws:logs:{region}:{account}:log-group:{group}",
        }

    def members(self) -> dict[str, Any]:
        return self._members
