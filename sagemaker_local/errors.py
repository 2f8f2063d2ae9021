"""The errors SageMaker and its runtime answer with: a class is named as its AWS error code.

Which error an operation uses is SageMaker's own (uneven) choice: an unknown name is mostly a `ValidationException`, a
duplicate training job is `ResourceInUse`, a duplicate model again a `ValidationException`. Clients depend on that.
"""

from __future__ import annotations

from typing import Any


class ServiceError(Exception):
    """An error answer: the AWS error code is the class's name, `status` the HTTP status, `message` what clients see."""

    status = 400

    def __init__(self, message: str, **members: Any) -> None:
        super().__init__(message)
        self.message = message
        self.members = members  # what the answer says beside the message

    @property
    def code(self) -> str:
        """The AWS error code."""
        return type(self).__name__

    def body(self) -> dict[str, Any]:
        """The JSON body. Both spellings of the message are given, since AWS's services (and its clients) use both."""
        return {"__type": self.code, "message": self.message, "Message": self.message, **self.members}


class ValidationException(ServiceError):
    """The request is malformed, or names something that does not exist."""


class ValidationError(ServiceError):
    """The same from SageMaker Runtime."""


class SerializationException(ServiceError):
    """The body is not JSON, or a member has the wrong JSON type."""


class ResourceInUse(ServiceError):
    """A job of this name exists already."""


class ResourceNotFound(ServiceError):
    """Something the request refers to does not exist."""


class ObjectNotFoundException(ServiceError):
    """The same from Application Auto Scaling."""


class ResourceLimitExceeded(ServiceError):
    """A quota is used up."""


class ConflictException(ServiceError):
    """The request conflicts with the state of the resource."""


class UnknownOperationException(ServiceError):
    """The operation is not one of SageMaker's."""

    status = 404


class RequestEntityTooLargeException(ServiceError):
    """The body is longer than any request may be."""

    status = 413


class UnsupportedOperation(ServiceError):
    """SageMaker has it, this service does not. Status 400, so that no client retries in vain."""


class ThrottlingException(ServiceError):
    """More requests at once than the resource takes; clients try again."""

    status = 429


class ModelError(ServiceError):
    """The model server answered something other than 2xx, or (status 0) nothing at all."""

    status = 424


class ServiceUnavailable(ServiceError):
    """A service this one depends on (S3, STS) did not answer, or no instance of an endpoint can answer now."""

    status = 503


class InternalFailure(ServiceError):
    """A defect of this service; the traceback is in its log."""

    status = 500


def unsupported(member: str, why: str) -> ValidationException:
    """The error for a request member that would change the outcome and that this service cannot honour.

    Loud on purpose: silently ignoring it would make a local run mean something else than the same run on AWS.
    """
    return ValidationException(f"sagemaker_local does not support {member}: {why}")
