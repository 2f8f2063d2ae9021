"""One invocation on its way to a model server, through crashes and hangs of it."""

from __future__ import annotations

import asyncio
import time

from sagemaker_local.context import Context
from sagemaker_local.errors import ModelError, ServiceUnavailable
from sagemaker_local.serving.fleet import LOG_GROUP, NoInstanceError, VariantFleet
from sagemaker_local.serving.metrics import EndpointMetrics
from sagemaker_local.serving.model_client import (
    ExchangeError,
    ExchangeTimeoutError,
    Response,
    ResponseTooLargeError,
)

_RECOVERY_WAIT = 30.0
_EXIT_NOTICE = 0.25


class Call:
    """One invocation on its way to a model server, through crashes of it."""

    def __init__(
        self, ctx: Context, metrics: EndpointMetrics, endpoint: str, variant: VariantFleet, timeout: float
    ) -> None:
        self._ctx = ctx
        self._metrics = metrics
        self._timeout = timeout
        self._endpoint = endpoint
        self._variant = variant
        self.model_seconds = 0.0

    async def run(self, headers: list[tuple[bytes, bytes]], body: bytes) -> Response:
        """The model's 2xx answer.

        A server that breaks takes down all invocations it was sent, of which at most one is to blame. The others are
        sent again, one at a time, so that the one to blame meets nobody a second time.

        Raises:
            ModelError: the model answers anything else, too much, or nothing in time.
            ServiceUnavailable: no instance is healthy in time.
        """
        try:
            return await self._try(headers, body, retry=False)
        except _Broken as broken:
            if not broken.may_retry:
                raise await self._no_answer(broken.error) from broken
        async with self._variant.one_at_a_time:
            try:
                return await self._try(headers, body, retry=True)
            except _Broken as broken:
                raise await self._no_answer(broken.error) from broken

    def count(self, status: int, *, overhead_seconds: float) -> None:
        """Count the invocation in the endpoint's metrics; `run` has done it when it raises ModelError."""
        self._metrics.record(
            self._endpoint,
            self._variant.name,
            status,
            model_seconds=self.model_seconds,
            overhead_seconds=overhead_seconds,
        )

    async def _try(self, headers: list[tuple[bytes, bytes]], body: bytes, *, retry: bool) -> Response:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                instance = await self._variant.pick(min(self._timeout, _RECOVERY_WAIT))
            except NoInstanceError as error:
                raise ServiceUnavailable(
                    f"The service is unavailable: {error}. See the log group {LOG_GROUP}{self._endpoint}."
                ) from error
            began = time.perf_counter()
            try:
                response = await instance.invoke(headers, body, max(deadline - time.monotonic(), 0.001))
            except ExchangeTimeoutError as error:
                self.model_seconds += time.perf_counter() - began
                instance.suspect()
                raise await self._model_error(
                    0,
                    "Your invocation timed out while waiting for a response from container primary. Review the latency "
                    "metrics for each container in Amazon CloudWatch, resolve the issue, and try again.",
                ) from error
            except ResponseTooLargeError as error:
                self.model_seconds += time.perf_counter() - began
                raise await self._model_error(
                    0, f"The response of container primary is larger than {instance.spec.max_answer} bytes."
                ) from error
            except ExchangeError as error:
                self.model_seconds += time.perf_counter() - began
                alone = instance.failed_alone
                exited = await instance.exits_within(_EXIT_NOTICE)
                if not error.sent and time.monotonic() < deadline:
                    continue
                raise _Broken(error, may_retry=exited and not alone and not retry) from error
            self.model_seconds += time.perf_counter() - began
            if 200 <= response.status < 300:
                return response
            raise await self._model_error(response.status, response.body.decode(errors="replace"))

    async def _no_answer(self, error: ExchangeError) -> ModelError:
        return await self._model_error(0, f"The container primary gave no answer: {error}.")

    async def _model_error(self, status: int, message: str) -> ModelError:
        self.count(status, overhead_seconds=0.0)
        region, account = self._ctx.config.region, await asyncio.to_thread(self._ctx.account)
        kind, group = "client" if 400 <= status < 500 else "server", LOG_GROUP + self._endpoint
        return ModelError(
            f'Received {kind} error ({status}) from primary with message "{message}". See '
            f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group} "
            f"in account {account} for more information.",
            OriginalStatusCode=status,
            OriginalMessage=message,
            LogStreamArn=f"arn:aws:logs:{region}:{account}:log-group:{group}",
        )


class _Broken(Exception):
    def __init__(self, error: ExchangeError, *, may_retry: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.may_retry = may_retry
