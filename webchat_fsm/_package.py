"""What a package does as it is imported: its logger is guarded, and public names are imported at first use.

PEP 562 describes the second. A pytest run loads the plugin of each installed package, and with the plugin its parent
package: tests that never chat need not wait for the modules of a chat, nor a chat of one transport for those of others.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec


def public_names(
    package: str, homes: Mapping[str, str], *, modules: frozenset[str] = frozenset()
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` of a package, which import its public names at first use.

    `homes` holds the names by their module, separated by spaces; `modules` are those of the package that are reached as
    an attribute without an import of their own. An unknown name raises `AttributeError`, as for any module.
    """
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def load(name: str) -> object:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in home_of:
            # A part of the package is not loaded here: freezegun asks each module for all of its attributes.
            part = not name.startswith("_") and find_spec(f"{package}.{name}") is not None
            hint = f": import {package}.{name} first" if part else ""
            # With the name and the module Python itself adds "did you mean".
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}{hint}", name=name, obj=sys.modules.get(package)
            )
        # Not kept in the package: pytest's `pytester` unloads the modules that a run within the process has loaded, and
        # a class that is kept would then be another than the one that the module has when it is loaded again.
        return getattr(import_module(home_of[name]), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of, *modules})

    return sorted(home_of), load, names


NAME = "webchat_fsm"


def guard(logger: logging.Logger) -> None:
    """Catch what the handlers and filters of a logger raise, so that it does not reach the caller; `logging` shows it.

    Python catches what an ordinary handler raises while it writes, but neither a filter that raises nor a handler that
    does so outside its `emit`.
    """
    handle = logger.handle

    def guarded(record: logging.LogRecord) -> None:
        try:
            handle(record)
        except Exception:
            if logging.raiseExceptions:
                with suppress(Exception):  # the standard error may be closed
                    traceback.print_exc()

    logger.handle = guarded  # type: ignore[method-assign]  # the application may have made the logger before us


guard(logging.getLogger(NAME))
