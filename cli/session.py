"""One command from its first task to its exit code.

The run has a process of its own, forked: this one looks on, asks and tells, and ends it when it is interrupted.
"""

from __future__ import annotations

import getpass
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from airflow import settings as airflow_settings
from airflow.listeners import hookimpl
from airflow.sdk.listener import get_listener_manager
from rich.markdown import Markdown

from cli import commands
from cli.execution import Run, save_pages
from cli.output import Output
from cli.target import Target
from cli.watch import Watch

POLL_S = 0.5
INTERRUPTED = "Interrupted. Jobs and executions that have begun go on; the same command finds the jobs."


class NobodyAnswersError(Exception):
    """A person is asked, and there is no terminal to ask one at."""


class Failures:
    """Airflow tells it why a task failed; it passes that on."""

    def __init__(self, tell: Callable[[tuple[str, str]], None]) -> None:
        self._tell = tell

    @hookimpl
    def on_task_instance_failed(self, task_instance: Any, error: Any) -> None:
        """Pass on the reason."""
        self._tell((task_instance.task_id, str(error) or type(error).__name__))


class Session:
    """What one command line does, and what it says."""

    def __init__(self, name: str, target: Target, run: Run, output: Output) -> None:
        self._name, self._target, self._run, self._output = name, target, run, output
        self._began = time.monotonic()
        self._stamp = f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        self._log: Path | None = None if output.verbose else target.own.logs_dir / f"{self._stamp}.log"
        self._console = output.console()
        self._reasons: dict[str, str] = {}
        self._watch = Watch(run, self._console, self._log)

    def run(self) -> int:
        """Run the command; return its exit code."""
        self._console.print(f"{self._name}: {self._run.dag.dag_id} on {self._target.name}", style="bold")
        self._output.others_write_to(self._log)
        processes = multiprocessing.get_context("fork")
        heard, told = processes.Pipe(duplex=False)
        child = processes.Process(target=self._execute, args=(told.send,))
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
        child.start()
        try:
            with self._watch.progress:
                goes_on = True
                while goes_on:
                    child.join(POLL_S)
                    goes_on = child.is_alive()  # before the look, else its last state might come in between
                    self._watch.look()
                    while heard.poll():
                        self._reasons.update([heard.recv()])
                    self._ask()
        except (KeyboardInterrupt, NobodyAnswersError) as error:
            child.kill()
            interrupted = isinstance(error, KeyboardInterrupt)
            self._console.print(INTERRUPTED if interrupted else error.__doc__)
            return self._tell(commands.INTERRUPTED if interrupted else commands.REFUSED)
        states = {one["task_id"]: one["state"] for one in self._watch.instances}
        goal = commands.COMMANDS[self._name].goal
        pages = save_pages(self._watch.returned, self._target.own.run_dir / "reports" / self._stamp)
        return self._tell(commands.exit_code(goal, self._watch.state, states), pages)

    def _execute(self, tell: Callable[[tuple[str, str]], None]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a task would take it for its own failure, and be tried again
        airflow_settings.engine.dispose(close=False)
        get_listener_manager().add_listener(Failures(tell))
        self._run.execute()

    def _ask(self) -> None:
        if all(one["state"] != "awaiting_input" for one in self._watch.instances):
            return
        question = self._run.question(self._watch.run_id)
        if question is None:
            return
        if not self._console.is_terminal:
            raise NobodyAnswersError
        self._watch.progress.stop()
        self._console.print(f"\n{question.subject}", style="bold", markup=False)
        self._console.print(Markdown(question.body or ""))
        choices = {option.lower(): option for option in question.options}
        answer = ""
        while answer not in choices:
            answer = self._console.input(f"{' or '.join(choices)}: ").strip().lower()
        self._run.answer(question, choices[answer], getpass.getuser())
        self._watch.progress.start()

    def _tell(self, code: int, pages: Sequence[Path] = ()) -> int:
        seconds = round(time.monotonic() - self._began, 1)
        failed = {one["task_id"] for one in self._watch.instances if one["state"] == "failed"}
        reasons = {task_id: text for task_id, text in self._reasons.items() if task_id in failed}
        for task_id, text in reasons.items():
            self._console.print(f"\n{task_id}: {text}", markup=False, soft_wrap=True)
        rows = [("Report", str(page)) for page in pages] + ([("Log", str(self._log))] if self._log else [])
        rows.append((commands.EXIT_CODES[code].partition(":")[0].capitalize(), f"{seconds} s"))
        for label, text in rows:
            self._console.print(f"{label:<14} {text}", markup=False, soft_wrap=True)
        self._output.document(
            {
                "command": self._name,
                "dag_id": self._run.dag.dag_id,
                "run_id": self._watch.run_id,
                "on": self._target.name,
                "params": self._run.conf,
                "state": self._watch.state,
                "exit_code": code,
                "seconds": seconds,
                "tasks": self._watch.instances,
                "returned": self._watch.returned,
                "errors": reasons,
                "reports": [str(page) for page in pages],
                "log": str(self._log) if self._log else None,
            }
        )
        return code
