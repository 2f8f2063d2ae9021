"""The web application behind the pages in the Airflow UI.

Every page asks Airflow's own authorisation: reading takes the permission to read runs of the DAG that wrote what is
shown, accepting a label takes the permission to trigger ``train_and_deploy``, whose next run learns from it.
Pages hold no script and their Content-Security-Policy allows none; stored reports, which show captured data, are
served sandboxed: should anything hostile ever get into one, it runs in no origin and can do nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from botocore.exceptions import BotoCoreError, ClientError
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from scones.aws.resources import ResourcesNotDeployedError
from scones.monitoring.index import DagRun
from scones.ui import pages, rejects
from scones.ui.aws import NoSuchResourceError, describe, open_store, package_metadata, read_trainings, with_costs
from scones.ui.predictions import batch_page, find, prediction_page
from scones.ui.trainings import lineage_page, trainings_page

log = logging.getLogger(__name__)

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'self'"
)
#: For stored documents: no scripts, no forms, no origin. What a link opens is a page of its own, without these limits.
DOCUMENT_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": PAGE_POLICY,
}
_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,126})")
_AWS_ERRORS = (ClientError, BotoCoreError)
_LONGEST_FORM = 8192
_MESSAGES = {401: "Sign in to Airflow first.", 403: "You may not see this: ask for access to the DAG it belongs to."}


def _may(method: Any, dag_id: str | None = None) -> Any:
    return Depends(requires_access_dag(method, DagAccessEntity.RUN, dag_id))


def build_application(parent: Any = None) -> FastAPI:
    """Build the application; ``parent`` is Airflow's, whose authorisation the pages use."""
    app = FastAPI(title="Scones monitor", docs_url=None, redoc_url=None, openapi_url=None)
    if parent is not None:
        # Airflow's dependencies look for its auth manager in the state of the application that serves the request.
        app.state = parent.state
    app.middleware("http")(_security_headers)
    for error in (StarletteHTTPException, RequestValidationError, ResourcesNotDeployedError, *_AWS_ERRORS):
        app.add_exception_handler(error, _problem)
    readers = {"reports": _may("GET", "monitor_endpoint"), "batches": _may("GET", "batch_inference")}
    for path, page, allowed in (
        ("/", overview, readers["reports"]),
        ("/reports/{endpoint_name}/{report_id}", report, readers["reports"]),
        ("/batches/{batch_id}", batch, readers["batches"]),
        ("/evaluations/{job_name}", evaluation, readers["reports"]),
        ("/runs/{dag_id}/{run_id:path}", run, _may("GET")),
        ("/resources/{kind}/{name:path}", resource, _may("GET", "train_and_deploy")),
        ("/trainings", trainings, _may("GET", "train_and_deploy")),
        ("/lineage/{job_name}", lineage, _may("GET", "train_and_deploy")),
        ("/predictions", predictions, readers["batches"]),
        ("/rejects", reject_queue, readers["batches"]),
        ("/rejects/{token}", reject_picture, readers["batches"]),
    ):
        app.add_api_route(path, page, methods=["GET"], response_class=HTMLResponse, dependencies=[allowed])
    writing = [Depends(same_origin), _may("POST", "train_and_deploy")]
    app.add_api_route("/rejects", decide, methods=["POST"], dependencies=writing)
    return app


async def _security_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _problem(request: Request, error: Exception) -> Response:
    """A page that says what is wrong; never a stack trace, never what AWS was asked."""
    status, message = 502, "The store of the reports cannot be reached. Is the connection aws_default right?"
    if isinstance(error, StarletteHTTPException):
        status = error.status_code
        message = _MESSAGES.get(status, str(error.detail))
    elif isinstance(error, RequestValidationError):
        status, message = 400, "The address of this page is not right: a part of it is missing, too long or no number."
    elif isinstance(error, ResourcesNotDeployedError):
        status, message = 503, str(error)
    else:
        log.warning("The page %s failed: %s", request.url.path, error)
    return HTMLResponse(pages.problem(_base(request), status, message), status_code=status)


def _base(request: Request) -> str:
    """Where the application is mounted, e.g. ``/scones``, with Airflow's own prefix before it."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise HTTPException(404, f"There is no such {what}.")
    return name


def _document(content: bytes | None, what: str) -> HTMLResponse:
    if content is None:
        raise HTTPException(404, f"There is no such {what}.")
    return HTMLResponse(content, headers={"Content-Security-Policy": DOCUMENT_POLICY})


def same_origin(request: Request) -> None:
    """Refuse a form that another site sent with the user's cookie (cross-site request forgery)."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        allowed = site == "same-origin"
    else:
        origin = request.headers.get("origin")
        # A client with a bearer token sends no cookie by itself, so nobody can make it send one.
        bearer = request.headers.get("authorization", "").lower().startswith("bearer ")
        allowed = bearer if origin is None else urlsplit(origin).netloc == request.headers.get("host")
    if not allowed:
        raise HTTPException(403, "This form was not sent by this page.")


def overview(request: Request) -> HTMLResponse:
    """The state of each endpoint, its trends and its reports."""
    return HTMLResponse(pages.overview(_base(request), with_costs(pages.endpoints(open_store()))))


def report(endpoint_name: str, report_id: str) -> HTMLResponse:
    """A stored report."""
    names = _checked(endpoint_name, "endpoint"), _checked(report_id, "report")
    return _document(open_store().report_page(*names), "report")


def batch(batch_id: str) -> HTMLResponse:
    """The stored page of a batch."""
    return _document(open_store().batch_page(_checked(batch_id, "batch")), "batch")


def evaluation(job_name: str) -> HTMLResponse:
    """The stored page of an evaluation."""
    return _document(open_store().evaluation_page(_checked(job_name, "training job")), "evaluation")


def run(request: Request, dag_id: str, run_id: str, show: Annotated[int, Query(ge=0, le=99)] = 0) -> HTMLResponse:
    """What a DAG run wrote, for the tab of the run."""
    return HTMLResponse(pages.run_documents(open_store(), _base(request), DagRun(dag_id, run_id), show))


def resource(request: Request, kind: str, name: str) -> HTMLResponse:
    """A job, an endpoint or an execution, where there is no AWS console."""
    try:
        return HTMLResponse(pages.resource(_base(request), describe(kind, name)))
    except NoSuchResourceError as error:
        raise HTTPException(404, str(error)) from error


def trainings(
    request: Request, a: Annotated[str, Query(max_length=63)] = "", b: Annotated[str, Query(max_length=63)] = ""
) -> HTMLResponse:
    """All training runs, two of them side by side."""
    return HTMLResponse(trainings_page(_base(request), read_trainings(open_store()), a, b))


def lineage(request: Request, job_name: str) -> HTMLResponse:
    """What a model was made of, and what it answered."""
    store = open_store()
    found = next(iter(read_trainings(store, job=_checked(job_name, "training job"))), None)
    if found is None:
        raise HTTPException(404, "There is no such training job.")
    return HTMLResponse(lineage_page(store, _base(request), found, pages.endpoints(store)))


def predictions(
    request: Request,
    wanted: Annotated[str, Query(max_length=2048, alias="find")] = "",
    batch_id: Annotated[str, Query(max_length=127, alias="batch")] = "",
    offset: Annotated[int, Query(ge=0, le=10**8)] = 0,
) -> HTMLResponse:
    """One prediction and all it hangs on, or all of a batch."""
    store, base = open_store(), _base(request)
    if batch_id:
        _checked(batch_id, "batch")
    if batch_id and not wanted:
        return HTMLResponse(batch_page(store, base, batch_id, offset))
    reports = pages.endpoints(store) if wanted else []
    found = find(store, wanted, batch_id, reports, package_metadata, datetime.now(UTC)) if wanted else None
    return HTMLResponse(prediction_page(store, base, wanted, found))


def reject_queue(request: Request, offset: Annotated[int, Query(ge=0, le=10**6)] = 0) -> HTMLResponse:
    """The reject queue."""
    return HTMLResponse(rejects.queue_page(open_store(), _base(request), offset))


def reject_picture(request: Request, token: str) -> HTMLResponse:
    """One image of the queue, large."""
    try:
        return HTMLResponse(rejects.picture_page(open_store(), _base(request), token))
    except rejects.NotInTheQueueError as error:
        raise HTTPException(404, str(error)) from error


async def decide(request: Request, user: GetUserDep) -> RedirectResponse:
    """Take what a person says of some images, or take a decision back; go on where they were."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            raise HTTPException(413, "The form is too long.")
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=4 * rejects.SHOWN)
        form = {name: values[-1] for name, values in fields.items()}
        offset, undone = form.pop("offset", "0"), form.pop("undo", "")
        arguments = (user.get_name(), datetime.now(UTC))
        if undone:
            await run_in_threadpool(rejects.take_back, open_store(), undone, *arguments)
        elif form:
            await run_in_threadpool(rejects.decide, open_store(), form, *arguments)
        else:
            raise HTTPException(400, "Nothing was chosen: choose what an image shows, then save.")
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    query = urlencode({"offset": offset if re.fullmatch("[0-9]{1,6}", offset) else "0"})
    return RedirectResponse(f"{_base(request)}/rejects?{query}", status_code=303)
