"""`python -m sagemaker_local --port 4580 --data-dir ./data`: run the service until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import fcntl
import logging
import signal
import sys
from pathlib import Path
from typing import IO

import uvicorn

from sagemaker_local.app import create_app
from sagemaker_local.box import open_box
from sagemaker_local.box.relay import App, Relays
from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.engine import Engine
from sagemaker_local.guard import Guard
from sagemaker_local.slow_clients import TimedProtocol


def main(argv: list[str] | None = None) -> int:
    """Run the service. Exit code 2 when the data directory is in use or the images file is wrong."""
    arguments = _parse(argv)
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    config = Config.from_environment(
        arguments.data_dir,
        host=arguments.host,
        port=arguments.port,
        images_file=arguments.images,
        containers=arguments.containers,
        max_training_jobs=arguments.max_training_jobs,
        stop_grace_seconds=arguments.stop_grace_seconds,
        outage_seconds=arguments.outage_seconds,
    )
    config.data_dir.mkdir(parents=True, exist_ok=True)
    lock = lock_directory(config.data_dir)
    if lock is None:
        sys.stderr.write(f"{config.data_dir} is in use by another sagemaker_local; give each its own --data-dir\n")
        return 2
    try:
        context = Context(config)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        engine = _open_engine(context) if config.containers == "docker" else None
    except OSError as error:
        sys.stderr.write(f"--containers docker needs a Docker engine on this machine: {error}\n")
        return 2
    ended = context.processes.end_leftovers()
    if ended:
        logging.getLogger(__name__).warning("ended %d processes of an earlier, killed service: %s", len(ended), ended)
    # uvicorn raises the signal again once it has shut down; by then there is nothing left to end.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    box = context.processes.box = open_box(config.endpoints, "Containers (training, processing, models)")
    network = box.network if box else None
    places = [place for place in (network, engine if engine and engine.is_closed else None) if place]
    app: App = create_app(context)
    for place in places:
        app = Relays(place, config.port).serving(app, config.endpoints)
    # Container logs and answers matter here, not one line per request.
    settings = uvicorn.Config(
        Guard(app, allowed_hosts=config.allowed_hosts, secret_key=config.secret_key),
        http=TimedProtocol,
        host=config.host,
        port=config.port,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # nothing stands in front of it, and looking for them costs every invocation
        timeout_graceful_shutdown=10,
    )
    sockets = [settings.bind_socket(), *(place.listen(config.port) for place in places)]
    try:
        uvicorn.Server(settings).run(sockets=sockets)
    finally:
        if engine:
            engine.close()
    return 0


def _open_engine(context: Context) -> Engine:
    """A Docker engine for the images that nothing stands for.

    Raises:
        OSError: no engine answers on this machine, or it cannot clear up or make the network.
    """
    engine = Engine(context.config.data_dir, context.config.endpoints)
    if left := engine.open():
        logging.getLogger(__name__).warning("removed %d containers of an earlier, killed service", left)
    context.processes.engine = engine
    context.images.engine_has = engine.has
    return engine


def lock_directory(data_dir: Path) -> IO[str] | None:
    """An exclusive lock on a data directory, held as long as the file stays open; None when another process has it."""
    handle = (data_dir / "lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sagemaker_local", description="SageMaker on one machine.")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=4580, help="port to bind (default 4580)")
    parser.add_argument("--data-dir", type=Path, required=True, help="directory for all state; made if absent")
    parser.add_argument("--images", type=Path, help="JSON file mapping image URIs to commands")
    parser.add_argument(
        "--containers",
        choices=["process", "docker"],
        default="process",
        help="what becomes of images that are not mapped: refused (process, the default), or run by a Docker engine",
    )
    parser.add_argument("--max-training-jobs", type=int, default=2, help="training jobs at once (default 2)")
    parser.add_argument("--stop-grace-seconds", type=float, default=120.0, help="between SIGTERM and SIGKILL (120)")
    parser.add_argument("--outage-seconds", type=float, default=60.0, help="how long a job retries S3 (60)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
