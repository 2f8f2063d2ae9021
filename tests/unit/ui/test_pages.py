"""Every route with empty, huge, hostile and missing parts: an answer with a sentence, never a trace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scones.aws import layout
from scones.monitoring.index import DagRun, IndexEntry, Window, add_entry, parse_index, parse_place
from scones.ui import pages
from scones.ui.store import PageStore
from tests.support.fake_aws import FakeS3, FakeSageMaker, client_error

pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx`")  # Airflow imports Starlette's test client
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def entry(report_id: str = "report-1", **changes: Any) -> IndexEntry:
    values: dict[str, Any] = {
        "report_id": report_id,
        "created_at": AT,
        "window": Window(AT, AT),
        "run": DagRun("monitor_endpoint", "run"),
        "status": "ok",
        "headline": "fine",
        "captured_records": 5,
        "rejection_rate": 0.25,
        "mean_confidence": 0.9,
        "latency_p95_ms": None,
        "violations": 0,
    }
    return IndexEntry(**values | changes)


# ---- the list of reports


def test_an_entry_keeps_its_marks_and_its_place_in_the_list() -> None:
    content = add_entry(None, "courier", entry("a", alarm_sent_at=AT))
    content = add_entry(add_entry(content, "courier", entry("b")), "courier", entry("a", captured_records=6))
    assert [(one.report_id, one.captured_records, one.alarm_sent_at) for one in parse_index(content)] == [
        ("b", 5, None),
        ("a", 6, AT),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "splendid"},
        {"captured_records": "many"},
        {"captured_records": -1},
        {"captured_records": int("9" * 400)},
        {"rejection_rate": "1e999"},
        {"run": None},
        {"created_at": "0001-01-01T00:00:00Z"},
        {"created_at": "2026-03-01T12:00:00"},
        {"window": []},
        {"means": {"brightness": "x"}},
    ],
)
def test_a_damaged_entry_costs_itself(change: dict[str, Any]) -> None:
    document = json.loads(add_entry(add_entry(None, "courier", entry("a")), "courier", entry("b")))
    document["reports"][0] |= change
    content = json.dumps(document).replace('"1e999"', "1e999").encode()
    assert [one.report_id for one in parse_index(content)] == ["a"]
    store = PageStore("b", client=FakeS3())
    store.write(layout.report_index("courier"), content, "application/json")
    assert "report-1" not in pages.overview("/scones", pages.endpoints(store))


_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_NAMES = list(json.loads(add_entry(None, "courier", entry()))["reports"][0])


@given(st.sampled_from([*_NAMES, "reports"]), _json)
@settings(max_examples=200, deadline=None)
def test_any_value_in_any_place_leaves_a_page(name: str, value: Any) -> None:
    document = json.loads(add_entry(add_entry(None, "courier", entry("a")), "courier", entry("b")))
    (document if name == "reports" else document["reports"][0])[name] = value
    content = json.dumps(document).encode()
    found = pages.Endpoint("courier", parse_index(content))
    assert "Scones monitor" in pages.overview("/scones", [found] if found.reports else [])
    assert parse_index(add_entry(content, "courier", entry("c")))[0].report_id == "c"


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_list_and_a_place(content: bytes) -> None:
    assert parse_index(content) == []
    assert parse_place(content, [entry()]) == entry().place_before


# ---- routes


@pytest.fixture(scope="module")
def application() -> Iterator[Any]:
    """The application over an empty bucket, for a user who may do everything."""
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import Depends

    from scones.ui import application

    patch = pytest.MonkeyPatch()
    may = application._may
    patch.setattr(application, "_may", lambda *_: Depends(lambda: None))
    patch.setattr(application, "open_store", lambda: PageStore("b", client=FakeS3()))
    patch.setattr(application, "read_trainings", lambda *_, **__: [])
    patch.setattr(application, "with_costs", lambda endpoints: endpoints)
    patch.setattr(application, "describe", lambda kind, name: _describe(kind, name))
    app = application.build_application()
    patch.setattr(application, "_may", may)
    app.dependency_overrides[get_user] = lambda: SimpleNamespace(get_name=lambda: "ann")
    yield app
    patch.undo()


def _describe(kind: str, name: str) -> Any:
    from scones.ui.aws import describe

    return describe(kind, name, lambda _: FakeSageMaker())


def ask(app: Any, method: str, path: str, **arguments: Any) -> Any:
    import httpx

    async def send() -> Any:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(send())


HEADS = ("reports/a/", "reports/", "batches/", "evaluations/", "rejects/")
LONG, HOSTILE = "x" * 5000, "%3Cscript%3E%00%0d%0a%ff"


@pytest.mark.parametrize(
    "path",
    [
        "/reports/courier/none",
        *(
            f"/{head}{part}"
            for head in ("reports/a/", "reports/", "batches/", "evaluations/", "rejects/")
            for part in (LONG, HOSTILE)
        ),
        *(f"/resources/{part}" for part in ("training-jobs/", f"training-jobs/{HOSTILE}", f"volcanoes/{LONG}", "x/y")),
        "/nothing",
        f"/runs/{HOSTILE}/{HOSTILE}",
        f"/trainings?a={LONG}",
        f"/lineage/{LONG}",
        f"/lineage/{HOSTILE}",
        "/reports/..%2f..%2fconfig/x",
        "/rejects?offset=-1",
        f"/rejects?offset={LONG}",
        "/runs/monitor_endpoint/run?show=many",
        "/runs/monitor_endpoint/run?show=-1",
    ],
)
def test_what_is_not_there_or_not_right_is_said_in_a_sentence(application: Any, path: str) -> None:
    answer = ask(application, "GET", path)
    assert answer.status_code in (400, 404)
    assert 'class="headline"' in answer.text
    assert "<script" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["/", "/rejects", "/trainings", "/runs/%3Cscript%3E/%3Cscript%3E", f"/runs/d/{LONG}", "/rejects?offset=999999"],
)
def test_pages_with_nothing_to_show_say_so(application: Any, path: str) -> None:
    answer = ask(application, "GET", path)
    assert answer.status_code == 200
    assert "<script" not in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"offset=0", 400),
        (b"undo=nobody", 400),
        (b"token=bicycle", 400),
        (b"\xff\x00=%ff", 400),
        (b"&".join(b"a%d=b" % number for number in range(500)), 400),
        (b"x=" + b"y" * 20_000, 413),
    ],
)
def test_a_form_that_is_not_right_is_refused(application: Any, body: bytes, status: int) -> None:
    answer = ask(application, "POST", "/rejects", content=body, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == status
    assert 'class="headline"' in answer.text


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {}])
def test_a_form_of_another_site_is_refused(application: Any, headers: dict[str, str]) -> None:
    assert ask(application, "POST", "/rejects", content=b"a=b", headers=headers).status_code == 403


def test_a_store_that_cannot_be_reached_is_said_without_a_trace(
    application: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scones.ui import application as module

    def broken() -> Any:
        raise client_error("AccessDenied", "secret bucket name", status=403)

    monkeypatch.setattr(module, "open_store", broken)
    answer = ask(application, "GET", "/rejects")
    assert answer.status_code == 502
    assert "secret" not in answer.text


def test_the_pages_are_not_for_strangers() -> None:
    from scones.ui.application import build_application

    app = build_application()
    paths = (
        "/",
        "/rejects",
        "/rejects/t",
        "/trainings",
        "/lineage/j",
        "/resources/training-jobs/j",
        "/runs/d/r",
        "/batches/b",
        "/reports/a/b",
    )
    assert {ask(app, "GET", path).status_code for path in paths} == {401}
