"""Services of the embedded platform for one benchmark: on free ports, in a folder that is gone afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedded import services
from embedded.processes import Service, end_leftovers, stop_all
from embedded.settings import PORT_FIELDS, EmbeddedSettings, free_port


@contextmanager
def own_settings(settings: EmbeddedSettings) -> Iterator[EmbeddedSettings]:
    """The settings with ports and a folder of their own; what still runs there at the end is ended with it."""
    with tempfile.TemporaryDirectory(prefix="scones-bench-", ignore_cleanup_errors=True) as folder:
        ports: dict[str, Any] = {name: free_port() for name in PORT_FIELDS}
        own = replace(settings, run_dir=Path(folder), **ports)
        try:
            yield own
        finally:
            end_leftovers(own.run_dir)


@contextmanager
def started(*in_order: Service) -> Iterator[None]:
    """The services, ready; ended afterwards, the last first."""
    try:
        for service in in_order:
            service.start()
            service.wait_ready()
        yield
    finally:
        stop_all(in_order)


@contextmanager
def ministack() -> Iterator[EmbeddedSettings]:
    """A MiniStack and nothing else; where it is."""
    with own_settings(EmbeddedSettings()) as settings, started(services.ministack(settings)):
        yield settings
