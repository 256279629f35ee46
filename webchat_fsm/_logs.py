"""Guard the package's logger: an exception in a handler or filter of the application does not reach a chat."""

from __future__ import annotations

import logging
import traceback
from contextlib import suppress

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
