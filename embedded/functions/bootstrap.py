"""Runs in an execution environment, under the function's own Python: Amazon's runtime client, fed over a socket.

    python -I -S bootstrap.py      (standard input is the socket; settings come from Lambda's environment variables)

`awslambdaric` does all that a handler can see: imports, events, context, answers, errors, logs. Only what carries its
messages is replaced: the native module it has for that speaks HTTP and exists for Linux and one version of Python each.
The standard library alone is used, and syntax that every Python Lambda offers understands.
"""

from __future__ import annotations

import json
import os
import resource
import select
import site
import socket
import struct
import sys
import threading
from typing import Any

_LENGTHS = struct.Struct(">II")


class Channel:
    """Messages to and from MiniStack: a JSON header and a body of bytes, each with its length before it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = connection.makefile("rb")

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        text = json.dumps(header).encode()
        self._connection.sendall(_LENGTHS.pack(len(text), len(body)) + text + body)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        lengths = self._reader.read(_LENGTHS.size)
        if len(lengths) < _LENGTHS.size:
            os._exit(0)  # MiniStack is gone
        header, body = _LENGTHS.unpack(lengths)
        return json.loads(self._reader.read(header)), self._reader.read(body)


class RuntimeClient:
    """Stands in for awslambdaric's native module `runtime_client`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._variables: dict[str, str] = {}
        self._ready = False

    def initialize_client(self, user_agent: str) -> None:
        """Nothing to do: the channel is there."""

    def next(self) -> tuple[bytes, dict[str, Any]]:
        """The next event's bytes, and the headers Lambda's Runtime API has for it."""
        if not self._ready:
            self._ready = True
            self._channel.send({"kind": "ready"})
        headers, body = self._channel.receive()
        for name in self._variables:
            os.environ.pop(name, None)
        self._variables = headers.pop("variables")
        os.environ.update(self._variables)
        return body, headers

    def post_invocation_result(self, invoke_id: str, data: bytes, content_type: str, invocation_id: Any = None) -> None:
        """A handler's answer."""
        self._answer("response", data, type=content_type)

    def post_error(self, invoke_id: str, error: str, xray_fault: str, invocation_id: Any = None) -> None:
        """A handler's exception, as the JSON text awslambdaric makes of it."""
        self._answer("error", error.encode("utf-8", "surrogatepass"))

    def _answer(self, kind: str, body: bytes, **more: str) -> None:
        self._channel.send({"kind": kind, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, **more}, body)


def end_with_ministack(connection: socket.socket) -> None:
    """End this process when the other side is gone, in the middle of a handler too."""
    poller = select.poll()
    poller.register(connection.fileno(), 0)  # a hang-up is always reported
    poller.poll()
    os._exit(1)


def search_path(task_root: str, runtime_dir: str) -> list[str]:
    """Where a Python function finds its modules on AWS, in that order, before the standard library."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    layers = os.path.join(os.environ["LAMBDA_LAYERS_ROOT"], "python")
    asked = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return [task_root, *asked, os.path.join(layers, "lib", version, "site-packages"), layers, runtime_dir]


def main() -> None:
    """Serve invocations until MiniStack hangs up."""
    connection = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=end_with_ministack, args=(connection,), daemon=True).start()
    channel = Channel(connection)
    site.setquit()  # -S leaves these out together with the machine's own packages
    site.sethelper()
    sys.modules["runtime_client"] = RuntimeClient(channel)  # type: ignore[assignment]

    standard_library, runtime_dir = list(sys.path), os.environ["LAMBDA_RUNTIME_DIR"]
    sys.path[:] = [runtime_dir, *standard_library]  # a function's own copy must not answer for Lambda itself
    from awslambdaric import bootstrap
    from awslambdaric.lambda_runtime_client import LambdaRuntimeClient
    from awslambdaric.lambda_runtime_marshaller import to_json

    sys.path[:] = search_path(os.environ["LAMBDA_TASK_ROOT"], runtime_dir) + standard_library

    class Client(LambdaRuntimeClient):
        """What awslambdaric sends over HTTP of its own: a failed start, SnapStart's hooks."""

        def call_rapid(
            self, method: str, endpoint: str, expected: int, payload: Any = None, headers: Any = None
        ) -> None:
            if endpoint.endswith("/error"):
                channel.send({"kind": "init error"}, to_json(payload).encode("utf-8", "surrogatepass"))

    bootstrap.run(os.environ["_HANDLER"], Client("the socket"))


if __name__ == "__main__":
    main()
