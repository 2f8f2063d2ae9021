"""The note of a person's action waits in a thread: the server serves meanwhile."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request

from embedded.airflow_api_server import noting_in_a_thread


def test_who_waits_for_the_database_does_not_keep_the_loop_from_who_writes() -> None:
    committed, noted = threading.Event(), list[Any]()

    def action_logging(event: str | None = None) -> Any:
        async def log_action(request: Request, who: str = "ann") -> None:
            body = await request.json()
            assert committed.wait(20), "the other request was not served meanwhile"
            noted.append((event, who, body))

        return log_action

    app = FastAPI()

    @app.post("/clear", dependencies=[Depends(noting_in_a_thread(action_logging)("cleared"))])
    async def clear(request: Request) -> Any:
        return await request.json()

    @app.get("/commit")
    async def commit() -> None:
        committed.set()

    async def both() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            cleared = asyncio.create_task(client.post("/clear?who=bea", json={"dry_run": False}))
            await asyncio.sleep(0)
            await client.get("/commit")
            return await cleared

    answer = asyncio.run(both())
    assert (answer.status_code, answer.json()) == (200, {"dry_run": False})
    assert noted == [("cleared", "bea", {"dry_run": False})]


def test_a_note_that_would_await_more_is_refused_with_what_to_do() -> None:
    def action_logging(event: str | None = None) -> Any:
        async def log_action(request: Any) -> None:
            await asyncio.sleep(0)

        return log_action

    class Request:
        async def body(self) -> bytes:
            return b""

    with pytest.raises(RuntimeError, match="adapt embedded/airflow_api_server"):
        asyncio.run(noting_in_a_thread(action_logging)()(request=Request()))


@pytest.mark.filterwarnings("ignore::Warning")  # Airflow imports a deprecated test client
def test_airflow_makes_its_notes_as_expected() -> None:
    """Its dependency is asynchronous and asks for the request by this name."""
    from airflow.api_fastapi.logging.decorators import action_logging

    log_action = action_logging("any")
    assert inspect.iscoroutinefunction(log_action)
    assert "request" in inspect.signature(log_action).parameters
