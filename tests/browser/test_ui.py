"""The pages in the Airflow UI, in a real Chromium against a real Airflow API server with the plugin.

Set SCREENSHOTS_DIR to a folder to keep the pictures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import requests

from embedded import environment, services
from embedded.airflow_api import AirflowApi
from embedded.processes import http_ok, stop_all
from embedded.settings import EmbeddedSettings
from scones.batch.names import batch_id_for
from scones.monitoring.aws import MonitoringAws
from scones.monitoring.document import WrittenReport
from scones.monitoring.index import DagRun
from scones.monitoring.report import ReportOrder, write_report
from scones.monitoring.store import MonitoringStore
from scones.ui.rejects import token_of
from tests.contract import monitoring_world as world
from tests.support.chromium import CHROMIUM, FLAGS, needs_chromium

pytestmark = [pytest.mark.browser, needs_chromium]
HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=2>\"'><svg onload=window.hacked=3>"
ENDPOINT = "scones-courier"
RUN_ID = "manual__2026-11-20T10:00:00+00:00"
BATCH_RUN_ID = "manual__2026-11-20T11:00:00+00:00"


@dataclass
class Site:
    """A running Airflow with reports, a batch and a reject queue."""

    url: str
    user: str
    password: str
    bucket: str
    s3: Any
    written: WrittenReport
    token: str = ""
    rejected: list[str] = field(default_factory=list)

    def get(self, path: str, token: str | None = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        session = requests.Session()
        session.trust_env = False
        return session.get(self.url + path, headers=headers, timeout=60, allow_redirects=False)


def _fill(s3: Any, cloudwatch: Any, bucket: str) -> tuple[WrittenReport, list[str]]:
    """A fine report, a drifted one with hostile captures, a batch page and its reject queue."""
    world.put_documents(s3, bucket)
    start = world.now() - timedelta(minutes=40)
    aws = MonitoringAws(
        store=MonitoringStore(bucket, client=s3),
        sagemaker=world.FakeSageMaker(bucket, ENDPOINT, start - timedelta(hours=1)),  # type: ignore[arg-type]
        cloudwatch=cloudwatch,
        sns=None,
    )
    world.put_traffic(s3, bucket, ENDPOINT, world.vehicles(120, 1), world.confidences(120, 1), start)
    write_report(aws, ReportOrder(ENDPOINT, DagRun("monitor_endpoint", "earlier")))
    night = (world.vehicles(120, 2) * 0.35).astype(np.uint8)
    world.put_traffic(s3, bucket, ENDPOINT, night, world.confidences(120, 2), start + timedelta(minutes=20))
    image = world.png(world.vehicles(1, 3)[0])
    lines = [
        world.capture_line(image, [0.5, 0.5], start, source=quote(HOSTILE), event_id=HOSTILE),
        world.capture_line(HOSTILE.encode(), [0.51, 0.49], start, source=HOSTILE),
        '{"captureData": "' + HOSTILE,
    ]
    hostile_key = world.capture_key(ENDPOINT, start).replace("000-", f"000-{HOSTILE.replace('/', '')}-")
    s3.put_object(Bucket=bucket, Key=hostile_key, Body="\n".join(lines).encode())
    written = write_report(aws, ReportOrder(ENDPOINT, DagRun("monitor_endpoint", RUN_ID)))
    batch = f"batches/{batch_id_for('batch_inference', BATCH_RUN_ID)}"
    page = f"<!doctype html><title>Batch</title><h1>Batch of 3 images</h1>{HOSTILE}"
    s3.put_object(Bucket=bucket, Key=f"{batch}/report.html", Body=page.encode())
    rejected = [f"photos/{HOSTILE}.png", "photos/second.png", "photos/third.png"]
    rows, results = ["key,label,guess,confidence,inference_id,execution_arn"], []
    for index, key in enumerate(rejected):
        s3.put_object(Bucket=bucket, Key=key, Body=world.png(world.vehicles(1, 50 + index)[0]))
        quoted = key.replace('"', '""')
        rows.append(f'"{quoted}",,bicycle,0.5{index},id-{index},e')
        row = {"batch_id": batch.partition("/")[2], "key": key, "outcome": "rejected", "inference_id": f"id-{index}"}
        results.append(json.dumps({**row, "predicted_class": "bicycle", "endpoint_name": HOSTILE}))
    s3.put_object(Bucket=bucket, Key=f"{batch}/rejected.csv", Body="\n".join(rows).encode())
    s3.put_object(Bucket=bucket, Key=f"{batch}/results/part-00000.jsonl", Body="\n".join(results).encode())
    summary = {"classes": world.CLASSES, "model": {"endpoint_name": ENDPOINT}}
    s3.put_object(Bucket=bucket, Key=f"{batch}/summary.json", Body=json.dumps(summary).encode())
    return written, rejected


@pytest.fixture(scope="module")
def database(platform_settings: EmbeddedSettings) -> Iterator[Future[Any]]:
    """Airflow's database with the DAGs, made by one process while the stack is deployed."""
    program = (
        "import sys; from airflow.__main__ import main;"
        "sys.argv[1:] = ['db', 'migrate']; main();"
        "sys.argv[1:] = ['dags', 'reserialize']; main()"
    )

    def make() -> None:
        services.write_passwords(platform_settings)
        subprocess.run(
            [sys.executable, "-c", program], env=environment.airflow_environment(platform_settings), check=True
        )

    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(make)


@pytest.fixture(scope="module")
def site(
    database: Future[Any],
    ministack: str,
    stack: dict[str, str],
    platform_settings: EmbeddedSettings,
    aws: Callable[..., Any],
) -> Iterator[Site]:
    s3 = aws("s3")
    bucket = stack["BucketName"]
    written, rejected = _fill(s3, aws("cloudwatch"), bucket)
    database.result()
    server = next(one for one in services.airflow(platform_settings) if one.name == "airflow-api-server")
    # No task runs here: what only tasks speak with need not be built, which takes as long as all the rest.
    server.command = [*server.command, "--apps", "core"]
    server.ready = lambda: http_ok(f"{platform_settings.airflow_url}/api/v2/monitor/health", timeout_s=60)
    server.start()
    try:
        server.wait_ready()
        api = AirflowApi(platform_settings.airflow_url, platform_settings.user, platform_settings.password)
        for dag_id, run_id in (("monitor_endpoint", RUN_ID), ("batch_inference", BATCH_RUN_ID)):
            # No scheduler runs: the runs stay queued, which is all a tab needs.
            api.call("POST", f"/dags/{dag_id}/dagRuns", json={"dag_run_id": run_id, "logical_date": None})
        found = Site(
            platform_settings.airflow_url,
            platform_settings.user,
            platform_settings.password,
            bucket,
            s3,
            written,
            rejected=rejected,
        )
        answer = requests.post(
            f"{found.url}/auth/token",
            json={"username": found.user, "password": found.password},
            timeout=30,
            proxies={"http": ""},
        )
        found.token = answer.json()["access_token"]
        yield found
    finally:
        stop_all([server])


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def signed_in(browser: Any, site: Site) -> Any:
    """What a browser keeps of a login through Airflow's own form."""
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(f"{site.url}/auth/login/")
    tab.fill("input[name=username]", site.user)
    tab.fill("input[name=password]", site.password)
    tab.click("button[type=submit]")
    tab.wait_for_url(lambda url: "/auth/login" not in url)
    kept = context.storage_state()
    context.close()
    return kept


@pytest.fixture
def expected_errors() -> list[str]:
    """Beginnings of console errors that a test provokes."""
    return []


@pytest.fixture
def page(browser: Any, signed_in: Any, expected_errors: list[str]) -> Iterator[Any]:
    """A page that is logged in, and fails the test on any error of the console."""
    size = {"width": 1400, "height": 1000}
    context = browser.new_context(viewport=size, color_scheme="light", storage_state=signed_in)
    tab = context.new_page()
    problems: list[str] = []
    tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
    yield tab
    hacked = [frame.url for frame in tab.frames if frame.evaluate("window.hacked")]
    context.close()
    assert hacked == []
    # Airflow's own requests that a closed page cancels are not ours.
    words = ("/scones", "Content Security", "hacked", "dialog")
    ours = [problem for problem in problems if any(word in problem for word in words)]
    assert [problem for problem in ours if not problem.startswith(tuple(expected_errors))] == []


def keep(tab: Any, name: str) -> None:
    """Keep a picture when asked to."""
    folder = os.environ.get("SCREENSHOTS_DIR")
    if folder:
        tab.screenshot(path=str(Path(folder) / f"{name}.png"))


PATHS = ["/scones/", "/scones/rejects", f"/scones/runs/monitor_endpoint/{quote(RUN_ID)}"]


def test_nothing_is_served_without_login(site: Site) -> None:
    stored = f"/scones/reports/{ENDPOINT}/{site.written['report_id']}"
    for path in [*PATHS, stored, "/scones/batches/x", "/scones/evaluations/x"]:
        answer = site.get(path)
        assert answer.status_code == 401, path
        assert ENDPOINT not in answer.text.replace(path, "")
        assert site.get(path, token="forged").status_code in (401, 403)
    assert site.get("/scones/", token=site.token).status_code == 200


def test_headers_keep_scripts_out(site: Site) -> None:
    for path in PATHS:
        answer = site.get(path, token=site.token)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    stored = site.get(f"/scones/reports/{ENDPOINT}/{site.written['report_id']}", token=site.token)
    assert stored.headers["content-security-policy"].startswith("sandbox")
    for bad in ("/scones/reports/..%2f..%2fconfig/x", "/scones/reports/nobody/report-1", "/scones/batches/a%2fb"):
        assert site.get(bad, token=site.token).status_code == 404


def test_navigation_page_shows_state_and_history(site: Site, page: Any) -> None:
    page.goto(f"{site.url}/plugin/scones-monitor")
    frame = page.frame_locator("iframe")
    frame.locator(".banner.violation").wait_for()
    assert "checks failed" in frame.locator(".banner .headline").first.inner_text()
    assert frame.locator("table tr").count() >= 3
    keep(page, "monitor")
    frame.get_by_text("open the latest report").click()
    frame.get_by_text("What was checked").wait_for()
    assert frame.locator("h1").inner_text() == f"Monitoring report · {ENDPOINT}"


def test_run_tab_shows_the_report_with_thumbnails_and_harmless_captures(site: Site, page: Any) -> None:
    page.goto(f"{site.url}/dags/monitor_endpoint/runs/{quote(RUN_ID)}/plugin/scones-report")
    report = page.frame_locator("iframe").frame_locator("iframe")
    report.get_by_text("What was checked").wait_for()
    assert report.locator(".gallery img").count() >= 12
    widths = report.locator(".gallery img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert min(widths) > 0
    body = report.locator("body").inner_text()
    assert "window.hacked=1" in body
    assert report.locator("script").count() == 0
    assert report.locator("img[onerror]").count() == 0
    assert report.locator("svg[onload]").count() == 0
    keep(page, "run-tab")


def test_run_tab_of_a_batch_shows_its_page_sandboxed(site: Site, page: Any, expected_errors: list[str]) -> None:
    expected_errors.extend(["Blocked script execution", "Loading the image"])
    page.goto(f"{site.url}/scones/runs/batch_inference/{quote(BATCH_RUN_ID)}")
    page.frame_locator("iframe").get_by_text("Batch of 3 images").wait_for()
    # The stored page itself is hostile here: its scripts must not have run.
    for frame in page.frames:
        assert not frame.evaluate("window.hacked")


def test_run_without_a_report_says_so(site: Site, page: Any) -> None:
    page.goto(f"{site.url}/scones/runs/monitor_endpoint/{quote(HOSTILE)}")
    assert "has written no report" in page.locator("body").inner_text()
    assert page.locator("script").count() == 0


def test_reject_queue_is_worked_through_by_keyboard_and_taken_back(site: Site, page: Any) -> None:
    page.goto(f"{site.url}/scones/rejects")
    cards = page.locator(".queue .card")
    assert cards.count() == 3
    assert page.locator(".queue img").count() == 3
    keep(page, "reject-queue")
    assert not cards.first.locator(".guess").is_visible()
    cards.nth(0).locator("input").first.focus()
    page.keyboard.press("ArrowDown")
    assert cards.nth(0).locator("input").nth(1).is_checked()
    assert cards.first.locator(".guess").is_visible()
    cards.nth(1).locator("input").last.focus()
    page.keyboard.press("Space")
    keep(page, "reject-queue-chosen")
    page.keyboard.press("Enter")
    page.get_by_text("2 of 3 decided").wait_for()
    keep(page, "reject-queue-decided")
    assert page.locator(".queue .card").count() == 1
    stored = site.s3.get_object(Bucket=site.bucket, Key="labels/accepted.csv")["Body"].read().decode()
    assert "window.hacked" in stored
    assert "motorcycle" in stored
    page.get_by_role("button", name="undo").first.click()
    page.get_by_text("1 of 3 decided").wait_for()
    page.locator(".queue a").first.click()
    assert page.locator("img.large").evaluate("one => one.naturalWidth") > 0


def test_label_from_another_site_is_refused(site: Site, page: Any) -> None:
    form = {token_of("photos/third.png"): "bicycle", "offset": "0"}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {}):
        answer = page.context.request.post(f"{site.url}/scones/rejects", form=form, headers=headers)
        assert answer.status == 403, headers
    anonymous = requests.post(
        f"{site.url}/scones/rejects", data=form, headers={"Sec-Fetch-Site": "same-origin"}, timeout=30
    )
    assert anonymous.status_code == 401
    bearer = {"Authorization": f"Bearer {site.token}"}
    for bad in ({token_of("photos/third.png"): "zebra"}, {token_of("config/threshold.json"): "bicycle"}):
        answer = requests.post(f"{site.url}/scones/rejects", data=bad, headers=bearer, timeout=30)
        assert answer.status_code == 400


PAGES = ("/scones/", "/scones/rejects", "/scones/predictions", "/scones/trainings", "/scones/nothing")
BATCH_ID = batch_id_for("batch_inference", BATCH_RUN_ID)


def test_no_page_scrolls_sideways(site: Site, browser: Any) -> None:
    """At a laptop's and a phone's size, light and dark: one page that is resized, not four that are loaded."""
    context = browser.new_context(extra_http_headers={"Authorization": f"Bearer {site.token}"})
    tab = context.new_page()
    found = f"/scones/predictions?batch={BATCH_ID}&find=id-0"
    for path in (*PAGES, f"/scones/predictions?batch={BATCH_ID}", found):
        tab.goto(site.url + path)
        for width, height in ((1366, 768), (390, 844)):
            tab.set_viewport_size({"width": width, "height": height})
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            for scheme in ("light", "dark"):
                tab.emulate_media(color_scheme=scheme)
                background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
                channels = [int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")]
                assert (sum(channels) / 3 > 128) == (scheme == "light"), (path, scheme)
                keep(tab, f"{path.partition('?')[0].strip('/').replace('/', '-')}-{width}-{scheme}")
    context.close()


def test_a_rejected_image_leads_to_its_prediction_and_on(site: Site, page: Any) -> None:
    page.goto(f"{site.url}/scones/rejects")
    page.get_by_text("where it comes from").first.click()
    page.get_by_text("What answered").wait_for()
    assert page.locator("img").evaluate("one => one.naturalWidth") > 0
    page.locator("a[href*='batch=']").first.click()
    page.locator("table.fit").wait_for()
    assert page.locator("table.fit tr").count() == 1 + len(site.rejected)


@pytest.mark.slow
def test_the_form_opens_with_what_people_change_and_offers_no_backfill(site: Site, page: Any) -> None:
    """Slow: it waits for all of Airflow's own page of a DAG. `tests/dags` holds the forms to the same without one."""
    page.set_default_timeout(120_000)
    page.goto(f"{site.url}/dags/train_and_deploy")
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_text("Lowest accepted test accuracy").wait_for()
    keep(page, "trigger-form")
    assert not page.get_by_text("Validation share", exact=True).is_visible()
    assert page.get_by_role("radio", name="Backfill").is_disabled()


def test_report_on_a_phone_does_not_scroll_sideways(site: Site, browser: Any, tmp_path: Path) -> None:
    stored = site.get(f"/scones/reports/{ENDPOINT}/{site.written['report_id']}", token=site.token)
    file = tmp_path / "report.html"
    file.write_bytes(stored.content)
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme, offline=True)
        tab = context.new_page()
        problems: list[str] = []
        tab.on("console", lambda message, into=problems: into.append(message.text))
        tab.goto(file.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        channels = [int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")]
        assert (sum(channels) / 3 > 128) == (scheme == "light")
        context.close()
        assert problems == []
