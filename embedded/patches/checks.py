"""What every patch of MiniStack needs: refuse a MiniStack that is not the one the patches were written for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import metadata
from typing import Any

TESTED_VERSION = "1.5.33"


class IncompatibleMiniStackError(RuntimeError):
    """The installed MiniStack is not the one the patches were written for."""


def check_version(installed: str | None = None) -> None:
    """Refuse a MiniStack other than TESTED_VERSION.

    Raises:
        IncompatibleMiniStackError: it is another; the message says what to do.
    """
    installed = installed or metadata.version("ministack")
    if installed != TESTED_VERSION:
        raise IncompatibleMiniStackError(
            f"MiniStack {installed} is installed, but embedded/patches is for {TESTED_VERSION}. Either install "
            f"the locked version (pip install ministack=={TESTED_VERSION}), or set TESTED_VERSION = {installed!r} "
            "in embedded/patches/checks.py, run tests/contract/test_ministack_launcher.py, and adapt each patch whose "
            "test then fails."
        )


def require(holds: bool, what: str) -> None:
    if not holds:
        raise IncompatibleMiniStackError(
            f"MiniStack {metadata.version('ministack')} has changed: {what}. Compare the patch in "
            "embedded/patches with MiniStack's source, adapt it, and run "
            "tests/contract/test_ministack_launcher.py."
        )


def replaceable(module: Any, name: str, arguments: tuple[str, ...]) -> Callable[..., Any]:
    """The function `name` of `module`, after checking that it takes what the patch passes on."""
    function = getattr(module, name, None)
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    found = code.co_varnames[: code.co_argcount] if code else None
    require(found == arguments, f"{module.__name__}.{name} takes {found}, expected {arguments}")
    assert callable(function)
    return function
