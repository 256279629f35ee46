"""Patches the standard library by gevent or eventlet, before or after `webchat_fsm` is imported."""

from __future__ import annotations


def patch(engine: str) -> None:
    """Patch for `gevent` or `eventlet`, not for `threads`; with the suffix `-late`, import the library first."""
    name, _, late = engine.partition("-")
    if late:
        # Modules that the package loads only when a service is made; each binds threads and sockets at its import.
        import webchat_fsm._runtime.http
        import webchat_fsm._runtime.service
        import webchat_fsm._runtime.websocket  # noqa: F401
    if name == "gevent":
        from gevent import monkey

        monkey.patch_all()
    if name == "eventlet":
        import eventlet

        eventlet.monkey_patch()
