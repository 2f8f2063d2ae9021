"""A page that a developer visits while the platform is up: a real Chromium sends what it can from it.

Names below `.example` lead to this machine, as with DNS rebinding; they are other sites to the browser.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.support.chromium import CHROMIUM, FLAGS

SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sns/aws4_request, SignedHeaders=host, Signature=0"
TEMPLATE = json.dumps({"Resources": {"T": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "evil-stack"}}}})
STACK = {"Action": "CreateStack", "StackName": "evil", "TemplateBody": TEMPLATE, "Version": "2010-05-15"}
TOPIC = {"Action": "CreateTopic", "Name": "evil", "Version": "2010-03-31"}
SIGNED_TOPIC: dict[str, Any] = {"headers": {"Authorization": SIGNED}, "body": urlencode(TOPIC)}
GROUP: dict[str, Any] = {
    "headers": {
        "Authorization": SIGNED,
        "X-Amz-Target": "SageMaker.CreateModelPackageGroup",
        "Content-Type": "application/x-amz-json-1.1",
    },
    "body": json.dumps({"ModelPackageGroupName": "evil"}),
}


class NextDoor:
    """The browser, and the site of its own that it is on."""

    def __init__(self, browser: Any, port: int, pages: list[str]) -> None:
        self.browser = browser
        self._site = f"http://evil.example:{port}"
        self._pages = pages

    @contextmanager
    def page(self, html: str, victim: str) -> Iterator[tuple[Any, list[str]]]:
        """The tab with a page of that content, and what came of what it asked at `victim`'s port.

        That is method, path and status of each answer; "blocked" in the place of the status where Chromium kept the
        answer, or never asked because it was not given leave to.
        """
        self._pages.append(f"<!doctype html><title>evil</title>{html}")
        with self.opened(f"{self._site}/{len(self._pages) - 1}", victim) as opened:
            yield opened

    @contextmanager
    def opened(self, address: str, victim: str) -> Iterator[tuple[Any, list[str]]]:
        """The same, of any address."""
        answers: list[str] = []

        def note(request: Any, outcome: Any) -> None:
            if urlsplit(request.url).port == urlsplit(victim).port:
                answers.append(f"{request.method} {urlsplit(request.url).path} {outcome}")

        tab = self.browser.new_page()
        try:
            tab.on("response", lambda answer: note(answer.request, answer.status))
            tab.on("requestfailed", lambda request: note(request, "blocked"))
            tab.goto(address)
            tab.wait_for_load_state("networkidle")
            yield tab, answers
        finally:
            tab.close()


@contextmanager
def next_door() -> Iterator[NextDoor]:
    """A Chromium on a site of somebody else's."""
    from playwright.sync_api import sync_playwright

    pages: list[str] = []

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages[int(self.path[1:])].encode() if self.path[1:].isdigit() else b""
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        arguments = [*FLAGS, "--host-resolver-rules=MAP *.example 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield NextDoor(browser, server.server_port, pages)
        browser.close()
    server.shutdown()


def form(evil: NextDoor, url: str) -> None:
    """A form that posts itself: no click, no preflight."""
    inputs = "".join(f"<input name='{name}' value='{value}'>" for name, value in STACK.items())
    html = f"<form method=post action='{url}/'>{inputs}</form><script>document.forms[0].submit()</script>"
    with evil.page(html, url) as (tab, answers):
        tab.wait_for_url(f"{url}/")
        assert answers == ["POST / 403"]


def fetch(evil: NextDoor, url: str) -> None:
    """A script that asks for no leave."""
    kinds = ("text/plain", "application/x-www-form-urlencoded")
    options = [{"method": "POST", "mode": "no-cors", "headers": {"Content-Type": kind}} for kind in kinds]
    paths = ("/", "/_ministack/reset")
    calls = [_call(url + path, {**how, "body": urlencode(TOPIC)}) for path in paths for how in options]
    with evil.page(f"<script>{''.join(calls)}</script>", url) as (_, answers):
        told = [answer for answer in answers if not answer.endswith("blocked")]
        assert sorted(told) == ["POST / 403"] * 2 + ["POST /_ministack/reset 403"] * 2


def signed_fetch(evil: NextDoor, url: str) -> None:
    """A header of one's own needs a preflight, which nobody allows: the browser itself stops it."""
    calls = [_call(f"{url}/", {"method": "POST", **options}) for options in (GROUP, SIGNED_TOPIC)]
    with evil.page(f"<script>{''.join(calls)}</script>", url) as (_, answers):
        assert answers == ["POST / blocked"] * 2


def image(evil: NextDoor, url: str) -> None:
    """Chromium tells nothing of an answer that is no image."""
    source = f"{url}/?{urlencode({**TOPIC, 'X-Amz-Signature': 0, 'Signature': 0})}"
    with evil.page(f"<img src='{source}'>", url) as (_, answers):
        assert answers == ["GET / blocked"]


def rebinding(evil: NextDoor, url: str) -> None:
    """A name that was made to point here: to the browser the service is the page's own site, so it sends any header."""
    address = f"http://rebound.example:{urlsplit(url).port}"
    with evil.opened(f"{address}/", url) as (tab, answers):
        assert answers == ["GET / 403"]
        for path, options in (("/", GROUP), ("/", SIGNED_TOPIC), (f"/?{urlencode(TOPIC)}", {})):
            how = json.dumps({"method": "POST", **options})
            assert tab.evaluate(f"fetch({json.dumps(address + path)}, {how}).then(answer => answer.status)") == 403


ATTACKS: list[Callable[[NextDoor, str], None]] = [form, fetch, signed_fetch, image, rebinding]
"""What a page can send; each fails unless the service at the URL refuses it."""


def traces(client: Callable[[str], Any]) -> dict[str, list[str]]:
    """What a successful attack would add to, or wipe; `client("s3")` is a client of the platform."""
    return {
        "buckets": [bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"]],
        "topics": [topic["TopicArn"] for topic in client("sns").list_topics()["Topics"]],
        "stacks": [stack["StackName"] for stack in client("cloudformation").list_stacks()["StackSummaries"]],
        "groups": package_groups(client("sagemaker")),
    }


def package_groups(sagemaker: Any) -> list[str]:
    """The names of all model package groups."""
    groups = sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]
    return [group["ModelPackageGroupName"] for group in groups]


def _call(url: str, options: dict[str, Any]) -> str:
    return f"fetch({json.dumps(url)}, {json.dumps(options)}).catch(() => 0);"
