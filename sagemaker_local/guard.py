"""Keeps out what is no client of an AWS service on this machine: pages in a browser, other names, other users.

A plain ASGI wrapper that knows nothing of what it guards, so that any emulated service can stand behind it. In order:

1. `Host` must name this machine (`localhost`, `*.localhost`), be an address, which no page can make point here, or be
   allowed: a name that a page made point here is refused.
2. `Origin` must be the service's own and `Sec-Fetch-Site` not another's: what a browser sends from one site to another
   never reaches a handler, whether form, fetch or image, and gets no CORS header.
3. A request must be signed (Signature Version 4, or a presigned URL), as all AWS clients do and a page cannot without a
   preflight. Health checks (`open_paths`) need not be.
4. With a secret of one's own the signature must be right, recomputed by botocore. A body is then part of it, unless the
   client signed the hash it says (S3): what is proved is who asks, not that S3's bodies arrived whole.

Source: Signature Version 4 in the IAM user guide, authenticating requests in the S3 user guide.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import re
import time
import uuid
from calendar import timegm
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from botocore.auth import HmacV1Auth, S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)
CLOCK_SKEW = 900  # seconds that a signature may be from now, as on AWS
MAX_SIGNED_BODY = 128 << 20  # bytes of a body that is held to verify its hash
_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_PLACES = ((0, 4), (4, 6), (6, 8), (9, 11), (11, 13), (13, 15))
_UNSIGNED = "UNSIGNED-PAYLOAD"


class Refused(Exception):
    """The request is not let in; `code` is AWS's for it."""

    def __init__(self, code: str, message: str, status: int = 403) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Guard:
    """`app` behind the checks of this module.

    Args:
        app: what is guarded; lifespan events pass through.
        allowed_hosts: names in `Host` beside this machine's own, without port; `*.name` allows all below a name.
        secret_key: when given, signatures are verified with it, whatever the access key.
        open_paths: paths that need no signature, as health checks; one that ends in "/" stands for all below it.
        now: the clock, in seconds since the epoch.
    """

    def __init__(
        self,
        app: App,
        *,
        allowed_hosts: Iterable[str] = (),
        secret_key: str | None = None,
        open_paths: Iterable[str] = ("/health",),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        hosts = [host.strip().lower() for host in allowed_hosts]
        self._hosts = frozenset(host for host in hosts if host and not host.startswith("*."))
        self._suffixes = (".localhost", *(host[1:] for host in hosts if host.startswith("*.")))
        self._secret_key = secret_key
        self._open_paths = frozenset(open_paths)
        self._open_folders = tuple(path for path in self._open_paths if path.endswith("/"))
        self._now = now
        self._known: set[bytes] = set()  # Host headers that were allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            self._check_browser(scope["method"] if scope["type"] == "http" else "GET", headers)
            if scope["path"] not in self._open_paths and not scope["path"].startswith(self._open_folders):
                receive = await self._check_signature(scope, headers, receive)
        except Refused as refused:
            log.warning("refused %s %s: %s", scope.get("method", "websocket"), scope["path"][:200], refused)
            await _answer(refused, scope, headers, send)
            return
        await self._app(scope, receive, send)

    # --- browsers

    def _check_browser(self, method: str, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"")
        if host not in self._known:
            if not self._is_allowed(_hostname(host)):
                raise Refused("AccessDeniedException", f"Host {host[:100].decode('latin-1')!r} is not this service's.")
            if len(self._known) < 100:
                self._known.add(host)
        origin = headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2].lower() != host.lower():
            raise Refused("AccessDeniedException", f"Requests from {origin[:100].decode('latin-1')!r} are not taken.")
        site = headers.get(b"sec-fetch-site")
        # A link from another port of this machine is followed (a presigned URL in a page of Airflow), nothing else.
        fine = (b"same-origin", b"none", b"same-site") if method in ("GET", "HEAD") else (b"same-origin", b"none")
        if site is not None and site not in fine:
            raise Refused("AccessDeniedException", "Requests that a browser sends from another site are not taken.")

    def _is_allowed(self, name: str) -> bool:
        return name == "localhost" or _is_address(name) or name in self._hosts or name.endswith(self._suffixes)

    # --- signatures

    async def _check_signature(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Receive:
        """Refuse what is unsigned or wrongly signed; gives the way to receive the body, which may have been read."""
        authorization, query = headers.get(b"authorization", b""), scope.get("query_string", b"")
        signed = authorization.startswith(b"AWS4-HMAC-SHA256 ")
        if not signed and b"Signature=" not in query:
            raise Refused("MissingAuthenticationTokenException", "The request is not signed: use an SDK or the CLI.")
        if self._secret_key is None:
            return receive
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        if signed:
            fields = dict(part.strip().partition("=")[::2] for part in given["authorization"][17:].split(","))
            fields["Date"] = given.get("x-amz-date", "")
            lifetime = CLOCK_SKEW
        else:
            parameters = {name: values[0] for name, values in parse_qs(query.decode("latin-1")).items()}
            if "AWSAccessKeyId" in parameters:
                self._verify_version_2(scope, given, parameters)
                return receive
            names = ("Credential", "SignedHeaders", "Signature", "Date")
            fields = {name: parameters.get(f"X-Amz-{name}", "") for name in names}
            lifetime = _number(parameters.get("X-Amz-Expires", ""))
        self._check_time(fields["Date"], lifetime)
        parts = fields.get("Credential", "").rsplit("/", 4)
        if len(parts) != 5 or not fields.get("SignedHeaders") or not fields.get("Signature"):
            raise Refused("IncompleteSignatureException", "The signature lacks Credential, SignedHeaders or Signature.")
        key, _, region, service, _ = parts
        payload = given.get("x-amz-content-sha256") or (_UNSIGNED if service == "s3" else None)
        if payload is None:
            body, receive = await _read(receive)
            payload = sha256(body).hexdigest()
        kind = _S3Verifier if service == "s3" else _Verifier
        signer = kind(Credentials(key, self._secret_key), service, region)
        request = AWSRequest(scope["method"], _url(scope, without=("X-Amz-Signature",)))
        request.headers = _Listed({name: given[name] for name in fields["SignedHeaders"].split(";") if name in given})
        request.context.update(timestamp=fields["Date"], payload=payload)
        expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        _compare(expected, fields["Signature"])
        return receive

    def _check_time(self, stamp: str, lifetime: float) -> None:
        if not _STAMP.fullmatch(stamp):
            raise Refused("IncompleteSignatureException", "The signature has no date.")
        year, month, day, hour, minute, second = (int(stamp[slice(*place)]) for place in _PLACES)
        age = self._now() - timegm((year or 1, max(1, min(month, 12)), day, hour, minute, second))
        if not -CLOCK_SKEW <= age <= lifetime:
            raise Refused("SignatureDoesNotMatch", f"Signature expired: it was made {age:.0f} s ago.")

    def _verify_version_2(self, scope: Scope, given: Mapping[str, str], parameters: Mapping[str, str]) -> None:
        """A presigned URL of S3's first kind, which boto3 makes unless told otherwise."""
        expires = parameters.get("Expires", "")
        if _number(expires) < self._now():
            raise Refused("AccessDenied", "Request has expired.")
        # Headers that were signed for the client to send may be parameters.
        signed = HTTPHeaders.from_dict({**parameters, **given})
        signer = _Version2(Credentials(parameters["AWSAccessKeyId"], self._secret_key), expires)
        expected = signer.get_signature(scope["method"], urlsplit(_url(scope)), signed)
        _compare(expected, parameters.get("Signature", ""))


class _Listed(dict[str, str]):
    """The headers that a request says it has signed, as the signer asks for them."""

    def get_all(self, name: str) -> tuple[str]:
        return (self[name],)


class _Verifier(SigV4Auth):
    """Signs what a request says it has signed."""

    def headers_to_sign(self, request: AWSRequest) -> _Listed:
        listed: _Listed = request.headers
        return listed

    def payload(self, request: AWSRequest) -> str:
        return str(request.context["payload"])


class _S3Verifier(_Verifier, S3SigV4Auth):
    """The same for S3, which encodes a path once."""


class _Version2(HmacV1Auth):
    """S3's first way to sign, where a presigned URL has its end in place of a date."""

    def __init__(self, credentials: Credentials, expires: str) -> None:
        super().__init__(credentials)
        self._expires = expires

    def _get_date(self) -> str:
        return self._expires


def _hostname(host: bytes) -> str:
    """The name of a Host header, without its port and brackets, lower case; "" when it is no valid one."""
    try:
        return (urlsplit(b"//" + host).hostname or b"").decode("ascii")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _compare(expected: str, given: str) -> None:
    if not hmac.compare_digest(expected.encode(), given.encode()):
        raise Refused("SignatureDoesNotMatch", "The signature does not match: is it made with this service's secret?")


def _url(scope: Scope, without: tuple[str, ...] = ()) -> str:
    """The request's URL as it was sent, percent-encoding and all, without some of its parameters."""
    path = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0].decode("latin-1")
    query = scope.get("query_string", b"").decode("latin-1")
    kept = [pair for pair in query.split("&") if pair.partition("=")[0] not in without]
    return f"http://service{path}?{'&'.join(kept)}"


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body, and a way to receive it again."""
    chunks, length, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        chunks.append(message.get("body", b""))
        length += len(chunks[-1])
        more = message.get("more_body", False)
        if length > MAX_SIGNED_BODY:
            raise Refused("RequestEntityTooLargeException", f"The body is longer than {MAX_SIGNED_BODY} bytes.", 413)
    body = b"".join(chunks)
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return body, again


async def _answer(refused: Refused, scope: Scope, headers: Mapping[bytes, bytes], send: Send) -> None:
    """The refusal in the form that the client reads: XML for S3 and the query protocol, else JSON."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": refused.code})
        return
    request_id, message = str(uuid.uuid4()), str(refused)
    form = headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded")
    credentials = headers.get(b"authorization", b"") + scope.get("query_string", b"").replace(b"%2F", b"/")
    if form or b"/s3/aws4_request" in credentials or b"AWSAccessKeyId=" in credentials:
        kind = b"text/xml"
        error = f"<Error><Code>{refused.code}</Code><Message>{escape(message)}</Message></Error>"
        body = f"<ErrorResponse>{error}<RequestId>{request_id}</RequestId></ErrorResponse>".encode()
    else:
        kind = b"application/json"
        body = json.dumps({"__type": refused.code, "message": message, "Message": message}).encode()
    answered = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"x-amzn-requestid", request_id.encode()),
        (b"x-amzn-errortype", refused.code.encode()),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": answered})
    await send({"type": "http.response.body", "body": body})
