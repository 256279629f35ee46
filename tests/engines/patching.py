"""Has gevent or eventlet replace the standard library, before or after `webchat_fsm` is imported."""

from __future__ import annotations


def patch(engine: str) -> None:
    """Patch for `gevent`, `eventlet`, or with neither for `threads`; `-late` is said where the library comes first."""
    name, _, late = engine.partition("-")
    if late:
        pass
    if name == "gevent":
        from gevent import monkey

        monkey.patch_all()
    if name == "eventlet":
        import eventlet

        eventlet.monkey_patch()
