"""The pytest plugin: fixtures for tests of code that chats. Pytest loads it wherever the package is installed.

Most of those tests are of other things, so the modules of the kit are imported inside the functions that use them, and
nothing is called for a test that uses no fixture of the kit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from webchat_fsm._model import Json
    from webchat_fsm._runtime.service import WebChatService
    from webchat_fsm.lifecycle._transports import Transport
    from webchat_fsm.testing._bench import Recordings, TestServer
    from webchat_fsm.testing._timeline import Timeline

CLOCK = "webchat_clock"
DEFAULT_CLOCK = "auto"
LONGEST_STORY = 200
"""Number of the last lines of a recording that the report of a failure shows."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting `webchat_clock` and the option `--webchat-seed`."""
    parser.addini(
        CLOCK, "what keeps the time of webchat_timeline: auto, time-machine, freezegun, injected", default=DEFAULT_CLOCK
    )
    group = parser.getgroup("webchat", "tests of code that chats")
    group.addoption("--webchat-seed", type=int, metavar="N", help="draw the faults of webchat_server from this seed")


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker of the kit, and check the setting of the clock."""
    config.addinivalue_line(
        "markers",
        "webchat(transport='v2', **config): how the fixture webchat reaches the chat server, and its settings;"
        " a marker of a test overrides those of its class and module",
    )
    if (kind := config.getini(CLOCK)) == DEFAULT_CLOCK:
        return
    from webchat_fsm.testing._timeline import check_kind

    try:
        check_kind(kind)
    except ValueError as error:
        # An error of use, at the start: as an error of a fixture it would fail each test instead.
        raise pytest.UsageError(f"{CLOCK}: {error}") from None


@pytest.fixture
def webchat_timeline(pytestconfig: pytest.Config) -> Iterator[Timeline]:
    """Time that only the test moves; `time.time()` is frozen where a package for that is installed."""
    from webchat_fsm.testing._timeline import Timeline

    with Timeline.frozen(pytestconfig.getini(CLOCK)) as timeline:
        yield timeline


@pytest.fixture
def webchat_server(webchat_timeline: Timeline, request: pytest.FixtureRequest) -> Iterator[TestServer]:
    """Provide the embedded chat server on the timeline, without sockets; its clients are closed at the end."""
    from webchat_fsm.testing._bench import TestServer

    before = set(threading.enumerate())
    server = TestServer(webchat_timeline, seed=request.config.getoption("--webchat-seed"))
    server.records = "webchat_recording" in request.fixturenames  # before any fixture makes a client
    request.config.pluginmanager.register(_Report(request.node, server))
    yield server
    server.close()
    # A service that the test itself made and did not close would go on in the time of the next test.
    begun = [thread for thread in threading.enumerate() if thread not in before]
    alive = [thread.name for thread in begun if thread.name.startswith("webchat-fsm")]
    if alive:
        pytest.fail(f"threads outlive their test; close the services that it makes: {alive}", pytrace=False)


@pytest.fixture
def webchat(webchat_server: TestServer, request: pytest.FixtureRequest) -> WebChatService:
    """Provide an opened service on the embedded server; the marker `webchat` sets its transport and configuration."""
    try:
        transport, config = marker_settings(list(request.node.iter_markers("webchat")))
    except ValueError as error:
        # Without traceback: the line to correct is the marker, not one of the plugin.
        raise pytest.fail.Exception(f"@pytest.mark.webchat: {error}", pytrace=False) from None
    chat = webchat_server.client(transport, config)
    chat.open()
    return chat


def known_settings() -> frozenset[str]:
    """Return the settings that a marker may name: the documented keys of the configuration."""
    import msgspec

    from webchat_fsm._config import UI_KEYS, Config

    # Without `transport`: the marker has its own, and the section of that name is chosen by it.
    return frozenset(known.encode_name for known in msgspec.structs.fields(Config)) - {"transport"} | UI_KEYS


def marker_settings(markers: Sequence[pytest.Mark]) -> tuple[Transport, Json]:
    """Return the transport and the settings of markers, the closest one first, which overrides the others.

    Raises `ValueError` for an unknown setting or transport.
    """
    from webchat_fsm._errors import nearest
    from webchat_fsm.lifecycle._transports import Transport
    from webchat_fsm.testing._bench import merged, transport_named

    transport, config, known = Transport.V2, dict[str, Any](), known_settings()
    # The farthest first, so that a closer one overrides it.
    for marker in reversed(markers):
        settings = dict(marker.kwargs)
        named = [*marker.args, *([settings.pop("transport")] if "transport" in settings else [])]
        if len(named) > 1:
            raise ValueError(f"takes one transport, got {', '.join(map(repr, named))}")
        for key in settings.keys() - known:
            raise ValueError(f"there is no setting {key!r}{nearest(key, {*known, 'transport'})}")
        transport = transport_named(named[0]) if named else transport
        config = merged(config, settings)
    return transport, config


@pytest.fixture
def webchat_recording(webchat_server: TestServer) -> Recordings:
    """Provide the recordings of all clients of the embedded server; the report of a failing test shows them."""
    from webchat_fsm.testing._bench import Recordings

    return Recordings(webchat_server)


class _Report:
    """Adds the seeds of the faults and the recordings to the reports of one failing test.

    A plugin of its own, registered while that test runs: a hook of the module would be called for every test.
    """

    def __init__(self, item: pytest.Item, server: TestServer) -> None:
        self._item, self._server = item, server

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Add the sections to the report of a failure; the report of the teardown is the last one of a test."""
        report: Any = yield
        if item is self._item:
            if report.failed:
                report.sections.extend(self._sections())
            if call.when == "teardown":
                item.config.pluginmanager.unregister(self)
        return report  # type: ignore[no-any-return]

    def _sections(self) -> Iterator[tuple[str, str]]:
        from webchat_fsm.testing._bench import Recordings
        from webchat_fsm.testing._story import story

        server = self._server
        if server.seeds:
            seeds = f"drawn from the seed{'s' * (len(server.seeds) > 1)} {', '.join(map(str, server.seeds))}"
            repeat = "" if server.base is None else f"; repeat with --webchat-seed={server.base}"
            yield "webchat faults", seeds + repeat
        for chat, recorder in server.recorders:
            # The end of the recording, as the failure is near it.
            lines = list(story(Recordings(server).of(chat)))[-LONGEST_STORY:]
            yield f"webchat recording of {chat!r} ({len(recorder.lines)} lines)", "\n".join(lines)
