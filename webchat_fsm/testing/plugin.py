"""The pytest plugin: fixtures for tests of code that chats. It loads by itself where the package is installed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from webchat_fsm.runtime.service import WebChatService
from webchat_fsm.testing import clocks
from webchat_fsm.testing.bench import TestServer
from webchat_fsm.testing.recordings import Recordings
from webchat_fsm.testing.story import told
from webchat_fsm.testing.timeline import Timeline

CLOCK = "webchat_clock"
SERVER = pytest.StashKey[TestServer]()
LONGEST_STORY = 200
"""Lines of a recording that a failure shows: the last ones."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The kit's settings."""
    parser.addini(CLOCK, f"what keeps the time of webchat_timeline: {', '.join(clocks.KINDS)}", default=clocks.AUTO)
    group = parser.getgroup("webchat", "tests of code that chats")
    group.addoption("--webchat-seed", type=int, metavar="N", help="draw the faults of webchat_server from this seed")


def pytest_configure(config: pytest.Config) -> None:
    """The kit's marker."""
    config.addinivalue_line(
        "markers",
        "webchat(transport='v2', **config): how the fixture webchat reaches the chat server, and its settings",
    )


@pytest.fixture
def webchat_timeline(pytestconfig: pytest.Config) -> Iterator[Timeline]:
    """Time that moves only when the test says so; `time.time()` is frozen where something can freeze it."""
    with Timeline.frozen(pytestconfig.getini(CLOCK)) as timeline:
        yield timeline


@pytest.fixture
def webchat_server(webchat_timeline: Timeline, request: pytest.FixtureRequest) -> Iterator[TestServer]:
    """The embedded chat server on the timeline, without sockets; its clients are closed at the end."""
    server = TestServer(webchat_timeline, seed=request.config.getoption("--webchat-seed"))
    server.records = "webchat_recording" in request.fixturenames
    request.node.stash[SERVER] = server
    yield server
    server.close()
    alive = [thread.name for thread in threading.enumerate() if thread.name.startswith("webchat-fsm")]
    assert not alive, f"threads outlive their test; close the services that it makes: {alive}"


@pytest.fixture
def webchat(webchat_server: TestServer, request: pytest.FixtureRequest) -> WebChatService:
    """An opened service on the embedded server; the marker `webchat` chooses its transport and settings."""
    marker = request.node.get_closest_marker("webchat")
    settings: dict[str, Any] = dict(marker.kwargs) if marker else {}
    chat = webchat_server.client(settings.pop("transport", "v2"), settings)
    chat.open()
    return chat


@pytest.fixture
def webchat_recording(webchat_server: TestServer) -> Recordings:
    """The recordings of all clients of the embedded server; a failing test shows them as stories."""
    return Recordings(webchat_server)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show, where a test fails, the seeds of its faults and what was recorded."""
    report: Any = yield
    server = item.stash.get(SERVER, None)
    if server is not None and report.failed:
        if server.seeds:
            seeds = ", ".join(map(str, server.seeds))
            again = f"repeat with --webchat-seed={server.seeds[0]}"
            report.sections.append(("webchat faults", f"drawn from the seed {seeds}; {again}"))
        for chat, recorder in server.recorders:
            story = list(told(Recordings(server).of(chat)))[-LONGEST_STORY:]
            report.sections.append((f"webchat recording of {chat!r} ({len(recorder.lines)} lines)", "\n".join(story)))
    return report  # type: ignore[no-any-return]
