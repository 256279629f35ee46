"""The pytest plugin: fixtures for tests of code that chats. It loads by itself where the package is installed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from webchat_fsm.config import UI_KEYS, Config
from webchat_fsm.errors import nearest
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.lifecycle.words import Json
from webchat_fsm.runtime.service import WebChatService
from webchat_fsm.testing import clocks
from webchat_fsm.testing.bench import TestServer, merged, way
from webchat_fsm.testing.recordings import Recordings
from webchat_fsm.testing.story import told
from webchat_fsm.testing.timeline import Timeline

CLOCK = "webchat_clock"
SERVER = pytest.StashKey[TestServer]()
KEYS = frozenset(known.encode_name for known in msgspec.structs.fields(Config)) - {"transport"} | UI_KEYS
"""The settings that a marker may name: the documented keys of the configuration."""
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
        "webchat(transport='v2', **config): how the fixture webchat reaches the chat server, and its settings;"
        " what a test says lies above what its class and module say",
    )
    try:
        clocks.check(config.getini(CLOCK))
    except ValueError as error:
        raise pytest.UsageError(f"{CLOCK}: {error}") from None


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
    try:
        transport, config = marked(list(request.node.iter_markers("webchat")))
    except ValueError as error:
        raise pytest.fail.Exception(f"@pytest.mark.webchat: {error}", pytrace=False) from None
    chat = webchat_server.client(transport, config)
    chat.open()
    return chat


def marked(markers: Sequence[pytest.Mark]) -> tuple[Transport, Json]:
    """The transport and the settings that markers choose, the closest one first, which lies above the others.

    Raises `ValueError` for what a marker cannot mean.
    """
    transport, config = Transport.V2, Json()
    for marker in reversed(markers):
        settings = dict(marker.kwargs)
        named = [*marker.args, *([settings.pop("transport")] if "transport" in settings else [])]
        if len(named) > 1:
            raise ValueError(f"takes one transport, got {', '.join(map(repr, named))}")
        for key in settings.keys() - KEYS:
            raise ValueError(f"there is no setting {key!r}{nearest(key, {*KEYS, 'transport'})}")
        transport = way(named[0]) if named else transport
        config = merged(config, settings)
    return transport, config


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
            seeds = f"drawn from the seed{'s' * (len(server.seeds) > 1)} {', '.join(map(str, server.seeds))}"
            again = "" if server.base is None else f"; repeat with --webchat-seed={server.base}"
            report.sections.append(("webchat faults", seeds + again))
        for chat, recorder in server.recorders:
            story = list(told(Recordings(server).of(chat)))[-LONGEST_STORY:]
            report.sections.append((f"webchat recording of {chat!r} ({len(recorder.lines)} lines)", "\n".join(story)))
    return report  # type: ignore[no-any-return]
