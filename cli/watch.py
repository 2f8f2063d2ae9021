"""A run as one sees it while it goes on: a line for each task that ended, and a bar on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from cli.execution import Run
from embedded.run import ENDED, line


class Watch:
    """What is known of a run, as of the last look into Airflow's database."""

    def __init__(self, run: Run, console: Console, log: Path | None) -> None:
        self.run_id, self.state = "", "not begun"
        self.instances: list[dict[str, Any]] = []
        self.returned: dict[str, Any] = {}
        self._run, self._console, self._log = run, console, log
        self._shown: set[tuple[str, int]] = set()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, style="bold"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}", markup=False, style="dim", table_column=Column(no_wrap=True, ratio=1)),
        )
        # Where somebody reads the log itself, a bar would be in its way.
        disable = log is None or not console.is_terminal
        self.progress = Progress(*columns, console=console, transient=True, expand=True, disable=disable)
        self._bar = self.progress.add_task("starting", total=len(run.dag.tasks), said="")

    def look(self) -> None:
        """Read what has changed since the last look, and show it."""
        self.run_id, self.state = self._run.named()
        self.instances = self._run.instances(self.run_id)
        ended = [one for one in self.instances if one["state"] in ENDED]
        new = [one for one in ended if (one["task_id"], one["map_index"]) not in self._shown]
        if new:
            self.returned = self._run.returned(self.run_id)
        for one in sorted(new, key=lambda one: one["end_date"] or ""):
            self._shown.add((one["task_id"], one["map_index"]))
            if one["start_date"] and one["end_date"]:
                self._console.print(line(self._run.dag.dag_id, one, self.returned), soft_wrap=True)
        at_work = {one["task_id"] for one in self.instances if one["start_date"] and one not in ended}
        self.progress.update(
            self._bar,
            completed=len(ended),
            total=max(len(self.instances), len(self._run.dag.tasks)),
            description=", ".join(sorted(at_work)) or "starting",
            said=_last_line(self._log) if self._log else "",
        )


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").splitlines()
    lines = [one for one in lines if "::group::" not in one and "::endgroup::" not in one]
    return lines[-1].partition("] ")[2] or lines[-1] if lines else ""
