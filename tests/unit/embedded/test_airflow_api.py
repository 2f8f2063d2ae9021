"""The client of Airflow's REST API, with a stand-in for the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from embedded.airflow_api import AirflowApi, AirflowApiError


def answer(status: int, body: Any) -> requests.Response:
    made = requests.Response()
    made.status_code, made._content = status, json.dumps(body).encode()
    return made


@pytest.fixture
def api() -> Callable[[Callable[..., requests.Response]], AirflowApi]:
    """A client whose requests are answered by a function; every login is taken."""

    def made(serve: Callable[..., requests.Response]) -> AirflowApi:
        client = AirflowApi("http://airflow", "admin", "secret")
        client._session.request = serve  # type: ignore[method-assign]
        client._session.post = lambda *_, **__: answer(201, {"access_token": "new"})  # type: ignore[method-assign]
        return client

    return made


@pytest.mark.parametrize("count", [0, 99, 100, 250])
def test_all_task_instances_are_returned_however_many_a_page_holds(api, count):
    there = [{"task_id": f"t{number}"} for number in range(count)]

    def serve(method: str, url: str, params: dict[str, int], **_: Any) -> requests.Response:
        begin = params.get("offset", 0)
        page = there[begin : begin + min(params["limit"], 100)]
        return answer(200, {"task_instances": page, "total_entries": count})

    assert api(serve).task_instances("d", "r") == there


def test_a_token_that_is_refused_is_renewed_once(api):
    asked = []

    def serve(*_: Any, **__: Any) -> requests.Response:
        asked.append(client._session.headers.get("Authorization"))
        return answer(200, "fine") if asked[-1] == "Bearer new" and len(asked) == 2 else answer(401, "who?")

    client = api(serve)
    assert client.call("GET", "/x") == "fine"
    with pytest.raises(AirflowApiError, match="GET /x answered 401") as refused:
        client.call("GET", "/x")
    assert (refused.value.status, asked) == (401, [None, "Bearer new", "Bearer new", "Bearer new"])
