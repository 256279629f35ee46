"""Recordings as sequences of messages between the user's code, the service and the chat server, and documented ones.

A poll that brings nothing and changes nothing is no item of its own, whether it is answered or fails: those between two
items are one note with their number and their times.

A documented sequence is a function that runs a chat against the embedded server in moved time. Nothing in it depends on
the clock, on the machine or on chance, so that the pictures in `diagrams/sequences` are the same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from webchat_fsm._core.timers import ASKING_ON
from webchat_fsm._model import Json
from webchat_fsm._runtime.service import WebChatService
from webchat_fsm._runtime.store import MemoryStore, SessionStore
from webchat_fsm.diagram._files import File
from webchat_fsm.diagram._sequence import Item, Kind, Party, Sequence, seconds, svg_sequence
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing._bench import TestServer
from webchat_fsm.testing._recorder import Recorder
from webchat_fsm.testing._recording import Recording
from webchat_fsm.testing._story import heading, message_texts, printable
from webchat_fsm.testing._timeline import Timeline

USER, SERVICE, SERVER = Party.USER, Party.SERVICE, Party.SERVER


def sequence(recording: Recording) -> Sequence:
    """Return the sequence of a recording; times are seconds since its first line."""
    parties = ("your code", "WebChatService", f"chat server ({recording.transport})")
    return Sequence(f"A chat over {recording.transport}", parties, tuple(_Reader(recording).items()))


class _Reader:
    """The lines of a recording while they become items."""

    def __init__(self, recording: Recording) -> None:
        self.lines = recording.lines
        self.started: float = next((line["time"] for line in self.lines), 0.0)
        self.operations = {line["request"]: line["operation"] for line in self.lines if "request" in line}
        self.asking = "polls" if recording.transport.polls else "connects"
        timers = (line for line in self.lines if line.get("tick") in ASKING_ON)
        self.asked = frozenset(line["calls"] for line in timers if "calls" in line)
        """Numbers of the requests that ask for messages, which a timer makes."""
        self.quiet = dict(self._quiet_requests())
        """How each request ended that asked for messages and had no effect, by its number."""
        self.run: list[Json] = []
        """The lines at which the quiet requests since the last item began and ended."""
        self.ended = ""
        """How those of the run ended."""

    def items(self) -> Iterator[Item]:
        for line in self.lines:
            number: int = line["request"] if "request" in line else line.get("answered", 0)
            ended = self.quiet.get(number)
            if ended is not None:
                if ended != self.ended:
                    yield from self._end_of_run()
                self.ended = ended
                self.run.append(line)
                continue
            for item in self._items_of(line):
                yield from self._end_of_run()
                yield item
        yield from self._end_of_run()

    def _time(self, line: Json) -> float:
        return float(line["time"]) - self.started

    def _quiet_requests(self) -> Iterator[tuple[int, str]]:
        """Yield the numbers of those whose end had no effect, and how they ended."""
        for line in self.lines:
            if line.get("answered") in self.asked and not _has_effect(line):
                yield line["answered"], "failed" if _has_failed(line) else "without content"

    def _end_of_run(self) -> Iterator[Item]:
        """Yield the note for the quiet requests that ended since the last item."""
        # One that was made before another item ends after it, so the answers are counted.
        if ends := [self._time(line) for line in self.run if "answered" in line]:
            count, first, last = len(ends), self._time(self.run[0]), ends[-1]
            what = self.asking if count > 1 else self.asking[:-1]
            until = f", {seconds(first)} .. {seconds(last)}" if seconds(first) != seconds(last) else ""
            yield Item(first, SERVICE, SERVICE, f"{count} {what} {self.ended}{until}", Kind.REPEATED)
        self.run = []

    def _items_of(self, line: Json) -> Iterator[Item]:
        time = self._time(line)
        yield from self._input(line, time)
        for source, trigger, dest in line.get("transitions", ()):
            if source != dest:  # what stays is no change, and nearly every answer has some
                yield Item(time, SERVICE, SERVICE, f"{source} to {dest} ({trigger})", Kind.STATE)
        if texts := [event["event"] + printable(message_texts(event["data"])) for event in line.get("events", ())]:
            yield Item(time, SERVICE, USER, ", ".join(texts), Kind.EVENT)
        outcome = line.get("outcome")
        # The outcome of a poll is no one's: the failure stands there already.
        if outcome and not outcome["resolved"] and line.get("answered") not in self.asked:
            yield Item(time, SERVICE, USER, f"rejected: {printable(outcome['reason'])}", Kind.FAILURE)

    def _input(self, line: Json, time: float) -> Iterator[Item]:
        if "command" in line:
            source = USER if line["by"] == "user" else SERVICE
            yield Item(time, source, SERVICE, line["command"], Kind.COMMAND)
        elif "request" in line:
            yield Item(time, SERVICE, SERVER, line["operation"], Kind.REQUEST)
        elif "answered" in line:
            name = self.operations.get(line["answered"], "answer")
            text = printable(line.get("fault") or f"{name} {line.get('status', '')}")
            yield Item(time, SERVER, SERVICE, text, Kind.FAILURE if _has_failed(line) else Kind.ANSWER)
        elif line.get("tick") not in ASKING_ON:  # of these the request shows that they were due
            yield Item(time, SERVICE, SERVICE, printable(heading(line)), Kind.STATE)


def _has_effect(line: Json) -> bool:
    """Return whether a step changed the state or published an event."""
    changed = any(source != dest for source, _, dest in line.get("transitions", ()))
    return changed or bool(line.get("events"))


def _has_failed(line: Json) -> bool:
    """Return whether a request had no answer, or one that reports a failure."""
    return "fault" in line or "trouble" in line or line.get("status", 200) >= 400


# -- the documented sequences ------------------------------------------------------------------------------------------


class _Setup:
    """A server and the moved time of one story."""

    def __init__(self, transport: Transport | None = None) -> None:
        self.timeline = Timeline()
        self.server = TestServer(self.timeline)
        self.transport = transport
        self.store: SessionStore = MemoryStore()
        self.recorder = Recorder()

    def chat(self) -> WebChatService:
        """Return a service on the store of the story; its recording takes the place of the former one."""
        self.recorder = Recorder()
        config = self.server.config() if self.transport is None else self.server.config(self.transport)
        driver, http = self.timeline.driver, self.server.http()
        return WebChatService(config, http=http, driver=driver, store=self.store, recorder=self.recorder)

    def recording(self) -> Recording:
        """Return the recording of the latest service."""
        return Recording.of(self.recorder)


def start_and_end() -> Recording:
    """Run a chat that an agent answers, until the customer ends it."""
    setup = _Setup()
    with setup.chat() as chat:
        chat.start_chat(nickname="Jonny", subject="product questions")
        setup.timeline.advance(2)
        setup.server.agent("Ann").join().say("Hello Jonny, this is Ann.")
        setup.timeline.advance(8)
        chat.send_message("Where is my parcel?")
        setup.timeline.advance(20)
        chat.end_chat()
    return setup.recording()


def outage() -> Recording:
    """Run a chat whose server is gone for some polls more than `pollExceptionLimit`, and comes back."""
    setup = _Setup()
    with setup.chat() as chat:
        chat.start_chat(nickname="Jonny")
        setup.timeline.advance(5)
        setup.server.faults.add(operation="refresh", drop=True, times=7)
        setup.timeline.advance(30)
    return setup.recording()


def restoring() -> Recording:
    """Run a chat that is left for 20 seconds, as when a page is loaded anew, and restored."""
    setup = _Setup()
    with setup.chat() as chat:
        chat.start_chat(nickname="Jonny")
        setup.timeline.advance(2)
        setup.server.agent("Ann").join().say("Hello Jonny, this is Ann.")
        setup.timeline.advance(5)
    setup.timeline.advance(20)
    with setup.chat() as chat:
        setup.timeline.advance(10)
        chat.end_chat()
    return setup.recording()


def dormant() -> Recording:
    """Lead an asynchronous chat to which the customer returns a day later."""
    setup = _Setup(next(one for one in Transport if one.asynchronous))
    with setup.chat() as chat:
        chat.start_chat(nickname="Jonny")
        setup.timeline.advance(2)
        chat.send_message("I will look in tomorrow")
        setup.timeline.advance(5)
    setup.timeline.advance(86_400)
    setup.server.agent("Ann").join().say("Your parcel is on its way")
    with setup.chat():
        setup.timeline.advance(5)
    return setup.recording()


class Story(NamedTuple):
    """A documented sequence: the function that runs it, and its title."""

    run: Callable[[], Recording]
    title: str


STORIES: Mapping[str, Story] = {
    "start-and-end": Story(start_and_end, "A chat from its start to its end"),
    "outage": Story(outage, "A server that is gone for seven polls"),
    "restoring": Story(restoring, "A chat that is restored 20 seconds after it was left"),
    "dormant": Story(dormant, "An asynchronous chat, a day later"),
}


def picture(name: str) -> str:
    """Return the SVG of a documented sequence."""
    story = STORIES[name]
    return svg_sequence(sequence(story.run())._replace(title=story.title))


def _page() -> str:
    shown = "\n".join(f"## {story.title}\n\n![{story.title}]({name}.svg)\n" for name, story in STORIES.items())
    return (
        "# Sequences\n\nGenerated by `webchat-fsm diagram` from chats against the embedded server; do not edit."
        f" `webchat-fsm replay FILE --diagram svg` draws a recording of yours in the same way.\n\n{shown}"
    )


def _file(name: str) -> File:
    return File(lambda: picture(name), STORIES[name].title)


FILES: Mapping[str, File] = {
    "README.md": File(_page, "The sequences."),
    **{f"{one}.svg": _file(one) for one in STORIES},
}
"""What the folder of the sequences contains, and nothing else."""
