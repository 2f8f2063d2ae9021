"""A tiny model server under the container contract, for tests of serving; it misbehaves on request.

`model/behaviour.json` in the artifact: {"name": ..., "ping": "ok"|"never"|"refuse", "exit_at_start": code}.
A JSON body {"do": ...} asks for a crash, a hang, garbage, a status, a large answer; anything else is echoed.
"""

import json
import os
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

ROOT = Path(os.environ.get("SM_ML_ROOT", "/opt/ml"))
FOUND = ROOT / "model" / "behaviour.json"
BEHAVIOUR = json.loads(FOUND.read_text()) if FOUND.exists() else {}
HANGING = threading.Event()


PROCESS = os.urandom(8).hex()  # a process id says little: each container counts its own


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if BEHAVIOUR.get("ping") == "never" or HANGING.is_set():
            time.sleep(3600)
        self.answer(503 if BEHAVIOUR.get("ping") == "refuse" else 200, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        content_type = self.headers.get("Content-Type", "")
        request = json.loads(body) if content_type == "application/json" else {}
        wish = request.get("do")
        if wish == "crash":
            time.sleep(request.get("after", 0))
            os._exit(17)
        if wish == "hang":
            HANGING.set()
            time.sleep(3600)
        if wish == "slow":
            time.sleep(request["seconds"])
        if wish == "garbage":
            self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            self.close_connection = True
            return
        if wish == "silence":
            self.close_connection = True
            return
        if wish == "status":
            self.answer(request["status"], request["message"].encode(), "text/plain")
            return
        if wish == "large":
            self.answer(200, b"x" * request["bytes"], "application/octet-stream")
            return
        answer = {
            "model": BEHAVIOUR.get("name"),
            "process": PROCESS,
            "content_type": content_type,
            "accept": self.headers.get("Accept"),
            "custom_attributes": self.headers.get("X-Amzn-SageMaker-Custom-Attributes"),
            "echo": request or len(body),
        }
        if "application/x-garbage" in (self.headers.get("Accept") or ""):
            self.answer(200, b"\xff\xfe\x00", "application/json")
            return
        self.answer(200, json.dumps(answer).encode())

    def answer(self, status, body, content_type="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if given := self.headers.get("X-Amzn-SageMaker-Custom-Attributes"):
            self.send_header("X-Amzn-SageMaker-Custom-Attributes", f"seen:{given}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, template, *values):
        if self.command != "GET":
            say(template % values)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main():
    if sys.argv[1:] != ["serve"]:
        raise SystemExit(f"asked for {sys.argv[1:]}, this image only serves")
    if "exit_at_start" in BEHAVIOUR:
        say("the model does not load")
        raise SystemExit(BEHAVIOUR["exit_at_start"])
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    say(f"serving {BEHAVIOUR.get('name')}")
    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
