"""MiniStack as a container's one process: start it, deploy the resources into it, and end with it.

``python -m embedded.container --check`` is the container's health check: MiniStack answers and the stack is deployed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from embedded.processes import http_ok

READY_FILE = Path("/tmp/scones-resources-deployed")  # noqa: S108 - inside the container, made anew at each start
POLL_SECONDS = 0.2
START_TIMEOUT_S = 60


# What differs where the resources live on this machine: the image that trains is `sagemaker_local`'s own, and functions
# run in the Python that is certainly here.
LOCAL_PARAMETERS = {
    "TrainingImage": "sagemaker-local/image-classification:1",
    "FunctionRuntime": f"python{sys.version_info.major}.{sys.version_info.minor}",
}


def deploy_command(stack_name: str) -> list[str]:
    """The command that deploys the resources on this machine."""
    command = [sys.executable, "-m", "infrastructure", "deploy", "--stack-name", stack_name]
    for name, value in LOCAL_PARAMETERS.items():
        command += ["--parameter", f"{name}={value}"]
    return command


def _health_url() -> str:
    return f"http://127.0.0.1:{os.environ.get('GATEWAY_PORT', '4566')}/_ministack/health"


def check() -> int:
    return 0 if READY_FILE.exists() and http_ok(_health_url()) else 1


def serve() -> int:
    """Run until MiniStack ends or SIGTERM comes; return the exit code."""
    READY_FILE.unlink(missing_ok=True)
    ministack = subprocess.Popen([sys.executable, "-m", "embedded.ministack_launcher"])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ministack.terminate())
    deadline = time.monotonic() + START_TIMEOUT_S
    while not http_ok(_health_url()):
        if ministack.poll() is not None:
            return ministack.returncode or 1
        if time.monotonic() > deadline:
            print(f"MiniStack did not answer within {START_TIMEOUT_S} s", file=sys.stderr)
            ministack.kill()
            return 1
        time.sleep(POLL_SECONDS)
    environment = {**os.environ, "AWS_ENDPOINT_URL": _health_url().rsplit("/", 2)[0]}
    stack_name = os.environ.get("SCONES_STACK_NAME") or "scones"
    if subprocess.run(deploy_command(stack_name), env=environment, check=False).returncode:
        ministack.terminate()
        ministack.wait()
        return 1
    READY_FILE.touch()
    return 0 if ministack.wait() in {0, -signal.SIGTERM} else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 0 when all is ready")
    raise SystemExit(check() if parser.parse_args().check else serve())
