"""One command from its first task to its exit code, with a stand-in for the run and its process."""

from __future__ import annotations

import io
import json
import multiprocessing
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from cli import session
from cli.output import Output


class Run:
    """A run whose last state is there between one look at its process and the next."""

    dag = SimpleNamespace(dag_id="cleanup", tasks=[])
    conf: dict[str, Any] = {}
    state = "running"

    def named(self) -> tuple[str, str]:
        return "r", self.state

    def instances(self, run_id: str) -> list[dict[str, Any]]:
        return []


class Child:
    """A process that ends when it is asked for the second time, having written its run's last state just before."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._asked = 0

    def start(self) -> None:
        pass

    def join(self, timeout: float) -> None:
        pass

    def is_alive(self) -> bool:
        self._asked += 1
        if self._asked == 2:
            self._run.state = "success"
        return self._asked < 2


def test_the_last_state_of_a_run_is_seen_whenever_it_comes(tmp_path: Path, monkeypatch: Any) -> None:
    run = Run()
    processes = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=lambda **_: Child(run))
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: processes)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(Output, "others_write_to", lambda *_: None)
    own = SimpleNamespace(logs_dir=tmp_path, run_dir=tmp_path)
    target = cast(Any, SimpleNamespace(name="here", own=own))
    out = io.StringIO()
    output = Output(as_json=True, verbose=True, out=out, err=io.StringIO())
    assert session.Session("cleanup", target, cast(Any, run), output).run() == 0
    assert json.loads(out.getvalue())["state"] == "success"
