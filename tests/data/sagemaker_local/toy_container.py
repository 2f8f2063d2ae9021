"""A container small enough to read: `train` and `serve` under SageMaker's contract, misbehaving as it is told to.

Hyperparameters of `train`: epochs, seconds (for each epoch), exit_code, failure (text), ignore_sigterm,
save_on_sigterm, checkpoint, signal (to itself). `serve` upper-cases what it is
sent; the variable TOY_SERVE says how it misbehaves.
"""

# ruff: noqa: T201
import json
import os
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(os.environ["SM_ML_ROOT"])


def read_config(name):
    return json.loads((ROOT / "input" / "config" / f"{name}.json").read_text())


def train():
    settings = read_config("hyperparameters")
    channels = read_config("inputdataconfig")
    files = sorted(
        str(p.relative_to(ROOT / "input" / "data")) for p in (ROOT / "input" / "data").rglob("*") if p.is_file()
    )
    model = {
        "hyperparameters": settings,
        "channels": channels,
        "files": files,
        "resources": read_config("resourceconfig"),
        "job": os.environ.get("TRAINING_JOB_NAME"),
        "region": os.environ.get("AWS_REGION"),
        "extra": os.environ.get("EXTRA"),
    }
    checkpoint = ROOT / "checkpoints" / "epoch.txt"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0

    def stop(*_):
        if settings.get("save_on_sigterm"):
            (ROOT / "model" / "model.json").write_text(json.dumps({**model, "stopped": True}))
            sys.exit(0)

    if settings.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, stop if settings.get("save_on_sigterm") else signal.SIG_DFL)
    for epoch in range(first, int(settings.get("epochs", 3))):
        print(f"Epoch[{epoch}] Train-accuracy={0.5 + epoch / 10:.6f}")
        print(f"Epoch[{epoch}] Validation-accuracy={0.4 + epoch / 10:.6f}")
        time.sleep(float(settings.get("seconds", 0)))
        if settings.get("checkpoint"):
            checkpoint.write_text(str(epoch + 1))
    if settings.get("signal"):
        os.kill(os.getpid(), int(settings["signal"]))
    if settings.get("failure"):
        (ROOT / "output" / "failure").write_text(settings["failure"])
    (ROOT / "model" / "model.json").write_text(json.dumps({**model, "first_epoch": first}))
    (ROOT / "output" / "data" / "curve.csv").write_text("epoch,accuracy\n")
    print("the last line has no newline", end="")
    return int(settings.get("exit_code", 0))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, content_type="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/execution-parameters":
            self.answer(404, b"")
        else:
            self.answer(500 if os.environ.get("TOY_SERVE") == "unhealthy" else 200, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"refuse" in body:
            self.answer(400, b"refused")
            return
        kind = self.headers.get("Content-Type", "none").encode()
        accept = self.headers.get("Accept", "none").encode()
        out = body.upper() if os.environ.get("TOY_SERVE") != "echo-headers" else kind + b"|" + accept
        self.answer(200, out)

    def log_message(self, form, *args):
        print(form % args)


def serve():
    if os.environ.get("TOY_SERVE") == "exit":
        print("cannot load the model")
        return 3
    address = (os.environ.get("TOY_HOST", "127.0.0.1"), int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080")))
    server = ThreadingHTTPServer(address, Handler)
    print("serving", sorted(p.name for p in (ROOT / "model").iterdir()))
    server.serve_forever()
    return 0


def connect(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
    except OSError as error:
        return type(error).__name__
    return "connected"


def process(arguments):
    """Concatenates the files of /opt/ml/processing/input into /opt/ml/processing/output/all.txt."""
    work = ROOT / "processing"
    print("arguments", arguments, os.environ.get("EXTRA"))
    if "--connect" in arguments:
        print(*(f"{address} {connect(address)}" for address in arguments[1:]), sep="\n")
    if "--fail" in arguments:
        message = ROOT / "output" / "message"
        message.parent.mkdir(parents=True, exist_ok=True)
        message.write_text("the data is wrong")
        return 4
    if "--sleep" in arguments:
        time.sleep(60)
    text = "".join(p.read_text() for p in sorted((work / "input").rglob("*")) if p.is_file())
    output = work / "output"
    (output / "nested").mkdir(parents=True, exist_ok=True)
    (output / "all.txt").write_text(text)
    (output / "nested" / "arguments.json").write_text(json.dumps(arguments))
    return 0


if __name__ == "__main__":
    verb = sys.argv[1] if len(sys.argv) > 1 else "process"
    if verb == "train":
        sys.exit(train())
    if verb == "serve":
        sys.exit(serve())
    sys.exit(process(sys.argv[1:]))
