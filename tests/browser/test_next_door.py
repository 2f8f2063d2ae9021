"""A page that a developer visits while the platform is up: a real Chromium sends what it can, and nothing happens.

Names below `.example` lead to this machine, as with DNS rebinding; they are other sites to the browser.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.support.chromium import CHROMIUM, FLAGS, needs_chromium

pytestmark = [pytest.mark.browser, needs_chromium]
SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sns/aws4_request, SignedHeaders=host, Signature=0"
TEMPLATE = json.dumps({"Resources": {"T": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "evil-stack"}}}})
KEPT = "kept-from-next-door"


@pytest.fixture(scope="module")
def evil() -> Iterator[Callable[[str], str]]:
    """`evil(html)` is the address of a page with that content, on a site of its own."""
    pages: list[str] = []

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages[int(self.path.strip("/") or 0)].encode() if self.path.strip("/").isdigit() else b""
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def page(html: str) -> str:
        pages.append(f"<!doctype html><title>evil</title>{html}")
        return f"http://evil.example:{server.server_port}/{len(pages) - 1}"

    yield page
    server.shutdown()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = [*FLAGS, "--host-resolver-rules=MAP *.example 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any, ministack: str, sagemaker_local: str) -> Iterator[Callable[[str], dict[str, int]]]:
    """`visit(address)` opens it and gives the status of every answer that came back from the platform, by method."""
    tab = chromium.new_page()
    ports = {urlsplit(ministack).port, urlsplit(sagemaker_local).port}

    def open_it(address: str) -> dict[str, int]:
        answers: dict[str, int] = {}
        tab.on("response", lambda answer: _note(answers, answer, ports))
        tab.goto(address)
        tab.wait_for_load_state("networkidle")
        return answers

    open_it.tab = tab  # type: ignore[attr-defined]
    yield open_it
    tab.close()


def _note(answers: dict[str, int], answer: Any, ports: set[int | None]) -> None:
    if urlsplit(answer.url).port in ports:
        answers[f"{answer.request.method} {urlsplit(answer.url).path}"] = answer.status


@pytest.fixture
def unharmed(ministack: str, sagemaker_local: str, aws: Callable[..., Any]) -> Iterator[None]:
    """What the test does leaves no trace: no stack, topic, job or bucket came or went."""
    aws("s3").create_bucket(Bucket=KEPT)
    yield
    assert KEPT in [bucket["Name"] for bucket in aws("s3").list_buckets()["Buckets"]], "everything was wiped"
    assert [topic for topic in aws("sns").list_topics()["Topics"] if "evil" in topic["TopicArn"]] == []
    assert [
        stack for stack in aws("cloudformation").list_stacks()["StackSummaries"] if "evil" in stack["StackName"]
    ] == []
    assert aws("sagemaker").list_processing_jobs()["ProcessingJobSummaries"] == []


def test_a_form_that_posts_itself(evil: Callable[[str], str], visit: Any, ministack: str, unharmed: None) -> None:
    fields = {"Action": "CreateStack", "StackName": "evil", "TemplateBody": TEMPLATE, "Version": "2010-05-15"}
    inputs = "".join(f"<input name='{name}' value='{value}'>" for name, value in fields.items())
    form = f"<form method=post action='{ministack}/'>{inputs}</form><script>document.forms[0].submit()</script>"
    answers = visit(evil(form))
    visit.tab.wait_for_url(f"{ministack}/")
    assert answers == {"POST /": 403}


@pytest.mark.parametrize("path", ["/", "/_ministack/reset"])
def test_a_script_that_asks_for_no_leave(
    evil: Callable[[str], str], visit: Any, ministack: str, unharmed: None, path: str
) -> None:
    body = "Action=CreateTopic&Name=evil&Version=2010-03-31"
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        options = {"method": "POST", "mode": "no-cors", "headers": {"Content-Type": kind}, "body": body}
        script = f"<script>fetch({json.dumps(ministack + path)}, {json.dumps(options)})</script>"
        assert visit(evil(script)) == {f"POST {path}": 403}


def test_a_script_that_signs_is_stopped_by_its_own_browser(
    evil: Callable[[str], str], visit: Any, ministack: str, unharmed: None
) -> None:
    """A header of one's own needs a preflight, which nobody allows."""
    options = {"method": "POST", "headers": {"Authorization": SIGNED}, "body": "Action=CreateTopic&Name=evil"}
    address = evil(f"<script>fetch({json.dumps(ministack + '/')}, {json.dumps(options)}).catch(() => 0)</script>")
    assert "POST /" not in visit(address)


def test_an_image(evil: Callable[[str], str], visit: Any, ministack: str, unharmed: None) -> None:
    query = "?Action=CreateTopic&Name=evil&X-Amz-Signature=0&Signature=0"
    # Chromium tells nothing of an answer that is no image.
    assert set(visit(evil(f"<img src='{ministack}/{query}'>")).values()) <= {403}


@pytest.mark.parametrize("service", ["ministack", "sagemaker_local"])
def test_a_name_that_was_made_to_point_here(
    service: str, visit: Any, unharmed: None, request: pytest.FixtureRequest
) -> None:
    """DNS rebinding: to the browser the service is the page's own site, so it may send any header."""
    port = urlsplit(request.getfixturevalue(service)).port
    address = f"http://rebound.example:{port}"
    assert visit(f"{address}/") == {"GET /": 403}
    target = {"ministack": "AmazonSNS", "sagemaker_local": "SageMaker.CreateProcessingJob"}[service]
    options = {"method": "POST", "headers": {"Authorization": SIGNED, "X-Amz-Target": target}, "body": "{}"}
    for url, how in ((f"{address}/", options), (f"{address}/?Action=CreateTopic&Name=evil", {})):
        script = f"fetch({json.dumps(url)}, {json.dumps(how)}).then(answer => answer.status)"
        assert visit.tab.evaluate(script) == 403


def test_a_presigned_url_opens(visit: Any, aws: Callable[..., Any], unharmed: None) -> None:
    """Which is what a link in a page of Airflow is."""
    aws("s3").put_object(Bucket=KEPT, Key="a b.txt", Body=b"content", ContentType="text/plain")
    url = aws("s3").generate_presigned_url("get_object", {"Bucket": KEPT, "Key": "a b.txt"})
    assert visit(url) == {f"GET /{KEPT}/{quote('a b.txt')}": 200}
    assert visit.tab.inner_text("body") == "content"
