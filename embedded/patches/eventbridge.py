"""EventBridge in MiniStack: events that SageMaker sends."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from embedded.patches.checks import replaceable

_SAGEMAKER_AGENT = "sagemaker_local"


def let_sagemaker_announce(eventbridge: Any) -> None:
    """Take events of the source `aws.sagemaker` from the service that says in its user agent that it is SageMaker."""
    handle = replaceable(eventbridge, "handle_request", ("method", "path", "headers", "body", "query_params"))
    put_events = replaceable(eventbridge, "_put_events", ("data", "allow_aws_source"))
    from_sagemaker: ContextVar[bool] = ContextVar("from_sagemaker", default=False)

    async def handle_request(method: str, path: str, headers: dict[str, str], body: bytes, query_params: Any) -> Any:
        mark = from_sagemaker.set(_SAGEMAKER_AGENT in headers.get("user-agent", ""))
        try:
            return await handle(method, path, headers, body, query_params)
        finally:
            from_sagemaker.reset(mark)

    def put(data: dict[str, Any], allow_aws_source: bool = False) -> Any:
        sources = {str(entry.get("Source")) for entry in data.get("Entries", [])}
        own = {source for source in sources if source.startswith("aws.")} <= {"aws.sagemaker"}
        return put_events(data, allow_aws_source or (own and from_sagemaker.get()))

    eventbridge.handle_request = handle_request
    eventbridge._put_events = put
