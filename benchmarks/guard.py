"""What the guard before MiniStack and sagemaker_local costs a request, side by side with none.

A request as boto3 signs it goes through an application that answers at once, so that nothing but the guard is measured.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks.measure import Measurement
from sagemaker_local.guard import App, Guard, Message, Receive, Scope, Send

SECRET = "a-secret-of-ones-own"
REQUESTS = 2000
ROUNDS = 7
BODY = b"x" * 2500  # an image of 32 x 32 pixels


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _request() -> Scope:
    path = "/endpoints/scones-courier/invocations"
    request = AWSRequest("POST", f"http://127.0.0.1:4580{path}", {"Content-Type": "application/x-image"}, BODY)
    SigV4Auth(Credentials("test", SECRET), "sagemaker", "us-east-1").add_auth(request)
    sent = {"host": "127.0.0.1:4580", **{name.lower(): value for name, value in request.headers.items()}}
    headers = [(name.encode(), value.encode()) for name, value in sent.items()]
    return {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}


async def _microseconds(app: App, request: Scope) -> float:
    """Processor time of one request."""
    answers: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Message) -> None:
        if "status" in message:
            answers.append(message["status"])

    began = time.process_time()
    for _ in range(REQUESTS):
        await app(dict(request), receive, send)
    took = time.process_time() - began
    assert answers == [200] * REQUESTS, f"the guard refused the benchmark's own request: {answers[-1]}"
    return took / REQUESTS * 1e6


def guard_cost() -> list[Measurement]:
    apps: dict[str, App] = {
        "none": _answer,
        "as it is on one machine": Guard(_answer),
        "signatures verified, as in compose": Guard(_answer, secret_key=SECRET),
    }
    found: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(ROUNDS):
        for name, app in apps.items():
            found[name].append(asyncio.run(_microseconds(app, _request())))
    medians = {f"µs a request, {name}": statistics.median(taken) for name, taken in found.items()}
    none, plain, verified = medians.values()
    beside = medians | {"µs that verifying a signature costs": verified - plain}
    cost = plain - none
    return [Measurement("guard-cost-us", cost, "µs", "<= 50", cost <= 50, beside)]


BENCHMARKS = {"guard-cost-us": guard_cost}
