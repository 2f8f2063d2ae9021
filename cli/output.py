"""The two streams: what a command says to people, and to programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from cli.commands import FAILED

WIDTH_OF_A_FILE = 140


@dataclass
class Output:
    """The two streams as we were given them. What everything else in this process writes goes to a log."""

    as_json: bool
    verbose: bool
    out: TextIO
    err: TextIO

    @classmethod
    def taken(cls, as_json: bool, verbose: bool) -> Output:
        """Keep the streams for ourselves."""
        ours = cls(as_json, verbose, *(os.fdopen(os.dup(number), "w", encoding="utf-8") for number in (1, 2)))
        ours.others_write_to(None if verbose else Path(os.devnull))
        return ours

    def others_write_to(self, log: Path | None) -> None:
        """Lead the libraries' output to a file, or to our standard error."""
        sys.stdout.flush()
        sys.stderr.flush()
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if log else os.dup(self.err.fileno())
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.close(target)

    def console(self) -> Console:
        """For people: on standard output, unless that belongs to a program."""
        file = self.err if self.as_json else self.out
        return Console(file=file, width=None if file.isatty() else WIDTH_OF_A_FILE, highlight=False)

    def document(self, document: Mapping[str, Any]) -> None:
        """For programs, if one asked."""
        if self.as_json:
            print(json.dumps(document, indent=2, default=str), file=self.out, flush=True)

    def refused(self, command: str, code: int, message: str) -> int:
        """Say why nothing was run, or why it broke off; return the exit code."""
        state = "broken off" if code == FAILED else "not run"
        print(f"scones {command}: {message}", file=self.err, flush=True)
        self.document({"command": command, "state": state, "exit_code": code, "error": message})
        return code
