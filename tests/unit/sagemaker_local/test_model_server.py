"""One instance's model server as a process, without an endpoint around it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import psutil

from sagemaker_local.images import Command
from sagemaker_local.processes import Processes
from sagemaker_local.serving.model_server import ModelServer, ServerSpec
from sagemaker_local.serving.settings import ServingSettings
from tests.support.local_service import wait_until

STUBBORN = """
trap 'touch told' TERM
echo $$ > pid.part && mv pid.part pid
for _ in $(seq 600); do sleep 0.05; done
"""


def test_stopping_it_while_its_keeper_ends_the_process_leaves_no_process(tmp_path: Path) -> None:
    command = Command(("sh", "-c", f"cd {tmp_path}\n{STUBBORN}"))
    spec = ServerSpec("v", tmp_path / "i-1", command, {}, startup_timeout=0.5, max_answer=1)
    settings = replace(ServingSettings(), stop_grace=30.0)

    async def stop_meanwhile() -> None:
        server = ModelServer(spec, Processes(tmp_path), settings, lambda: None)
        server.start()
        # It answers no ping, so its keeper ends it, and it takes the whole grace time.
        await asyncio.to_thread(wait_until, (tmp_path / "told").exists, "the process is told to end", 20)
        await asyncio.wait_for(server.stop(), 20)

    asyncio.run(stop_meanwhile())
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
