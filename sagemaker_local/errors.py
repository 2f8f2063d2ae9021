"""The errors SageMaker answers with, as exceptions that know their wire form.

Which error an operation uses is SageMaker's own (uneven) choice: an unknown name is mostly a `ValidationException`, a
duplicate training job is `ResourceInUse`, a duplicate model again a `ValidationException`. Clients depend on that.
"""

from __future__ import annotations


class ServiceError(Exception):
    """An error answer. `code` is the AWS error code, `status` the HTTP status, `message` the text the client sees."""

    code = "InternalFailure"
    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def body(self) -> dict[str, str]:
        """The JSON body. Both spellings of the message are given, since AWS's services (and its clients) use both."""
        return {"__type": self.code, "message": self.message, "Message": self.message}


class ValidationException(ServiceError):
    """The request is malformed, or names something that does not exist."""

    code = "ValidationException"
    status = 400


class SerializationException(ServiceError):
    """The body is not JSON, or a member has the wrong JSON type."""

    code = "SerializationException"
    status = 400


class ResourceInUse(ServiceError):
    """A job of this name exists already."""

    code = "ResourceInUse"
    status = 400


class ResourceNotFound(ServiceError):
    """Something the request refers to does not exist."""

    code = "ResourceNotFound"
    status = 400


class ResourceLimitExceeded(ServiceError):
    """A quota is used up."""

    code = "ResourceLimitExceeded"
    status = 400


class ConflictException(ServiceError):
    """The request conflicts with the state of the resource."""

    code = "ConflictException"
    status = 400


class UnknownOperationException(ServiceError):
    """The operation is not one of SageMaker's."""

    code = "UnknownOperationException"
    status = 404


class UnsupportedOperation(ServiceError):
    """SageMaker has it, this service does not. Status 400, so that no client retries in vain."""

    code = "UnsupportedOperation"
    status = 400


class ServiceUnavailable(ServiceError):
    """A service this one depends on (S3, STS) did not answer."""

    code = "ServiceUnavailable"
    status = 503


class InternalFailure(ServiceError):
    """A defect of this service; the traceback is in its log."""


def unsupported(member: str, why: str) -> ValidationException:
    """The error for a request member that would change the outcome and that this service cannot honour.

    Loud on purpose: silently ignoring it would make a local run mean something else than the same run on AWS.
    """
    return ValidationException(f"sagemaker_local does not support {member}: {why}")
