"""MiniStack as a container's one process: start it, deploy the resources into it, and end with it.

``python -m embedded.container --check`` is the container's health check: MiniStack answers and the stack is deployed.
``--aws-env`` prints what a shell outside needs: ``eval "$(docker compose exec -T ministack python -m embedded.container
--aws-env)"``.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from embedded.environment import shell_lines
from embedded.processes import http_ok
from embedded.settings import load

READY_FILE = Path("/tmp/scones-resources-deployed")  # noqa: S108 - inside the container, made anew at each start
POLL_SECONDS = 0.2
SECRET_FILE = Path("/secrets/scones_aws_secret_key")


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
    # A start that hangs is the health check's to find.
    while not http_ok(_health_url()):
        if ministack.poll() is not None:
            return ministack.returncode or 1
        time.sleep(POLL_SECONDS)
    environment = {**os.environ, "AWS_ENDPOINT_URL": _health_url().rsplit("/", 2)[0]}
    stack_name = os.environ.get("SCONES_STACK_NAME") or "scones"
    if subprocess.run(deploy_command(stack_name), env=environment, check=False).returncode:
        ministack.terminate()
        ministack.wait()
        return 1
    READY_FILE.touch()
    return 0 if ministack.wait() in {0, -signal.SIGTERM} else 1


def aws_env() -> int:
    """Print the shell commands, with the ports that this machine has published."""
    environ = os.environ | ({"SCONES_AWS_SECRET_KEY": SECRET_FILE.read_text()} if SECRET_FILE.exists() else {})
    print("\n".join(shell_lines(load(environ | {"SCONES_REGION": os.environ.get("AWS_REGION", "")}))))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 0 when all is ready")
    parser.add_argument("--aws-env", action="store_true", help="print what a shell needs")
    arguments = parser.parse_args()
    raise SystemExit(check() if arguments.check else aws_env() if arguments.aws_env else serve())
