"""A kit for test suites: the embedded server without sockets, and time that a test moves.

The fixtures `webchat_timeline`, `webchat_server` and `webchat` are there wherever the package is installed.
"""

from webchat_fsm.testing.bench import TestServer
from webchat_fsm.testing.embedded import EmbeddedHttp
from webchat_fsm.testing.timeline import Timeline

__all__ = ["EmbeddedHttp", "TestServer", "Timeline"]
