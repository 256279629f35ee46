"""What the audience of the demo sees: lines of time, kind and text, or lines of JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from webchat_fsm.cli.screen import Part, Screen, wide
from webchat_fsm.cli.telling import NOTICES, as_json, details, event_record, step_record
from webchat_fsm.diagram.walk import Step, walked
from webchat_fsm.lifecycle.events import MessageReceived
from webchat_fsm.lifecycle.table import Transport, Trigger
from webchat_fsm.runtime import clock
from webchat_fsm.runtime.delivery import AnyEvent

if TYPE_CHECKING:
    from rich.progress import Progress

WIDEST_EVENT = 24

UNTOLD = frozenset({Trigger.ANSWERED, Trigger.CONTENT_CAME})
"""Rows that come with nearly every answer and leave the state as it is: not told in the path."""


class Board(Protocol):
    """Takes what happens, from any thread."""

    def opening(self, url: str) -> None:
        """The server listens."""
        ...

    def scene(self, title: str) -> None:
        """A scene begins."""
        ...

    def waiting(self, why: str) -> None:
        """Something is awaited."""
        ...

    def command(self, name: str, arguments: str) -> None:
        """The customer gives a command."""
        ...

    def note(self, text: str) -> None:
        """A remark."""
        ...

    def stepped(self, step: Step) -> None:
        """The state machine has taken a row of its table."""
        ...

    def happened(self, event: AnyEvent) -> None:
        """An event was published."""
        ...

    def warned(self, text: str) -> None:
        """The library has logged a warning."""
        ...

    def playing(self, scenes: int) -> AbstractContextManager[None]:
        """The scenes are played inside."""
        ...

    def close(self) -> None:
        """It is over."""
        ...


class JsonBoard:
    """Transitions and events, one object a line."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def opening(self, url: str) -> None:
        """Nothing: machines get transitions and events."""

    def scene(self, title: str) -> None:
        """Nothing."""

    def waiting(self, why: str) -> None:
        """Nothing."""

    def command(self, name: str, arguments: str) -> None:
        """Nothing: a command shows in its transition."""

    def note(self, text: str) -> None:
        """Nothing."""

    def stepped(self, step: Step) -> None:
        """A line with the trigger and both states."""
        self._screen.put(text=as_json(step_record(step, clock.SystemClock().wall())))

    def happened(self, event: AnyEvent) -> None:
        """A line with the event's name, data and time."""
        self._screen.put(text=as_json(event_record(event, Transport.V2)))

    def warned(self, text: str) -> None:
        """To standard error: the lines are for transitions and events."""
        print(f"webchat-fsm: {text}", file=sys.stderr)

    @contextmanager
    def playing(self, scenes: int) -> Iterator[None]:
        """Nothing to set up."""
        yield

    def close(self) -> None:
        """Nothing."""


class TextBoard:
    """A line for each command, change of state and event; on a terminal a progress display below them."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._steps: list[Step] = []
        self._begun = clock.monotonic()
        self._progress: Progress | None = None
        self._task: Any = None

    def opening(self, url: str) -> None:
        """Who takes part."""
        self._screen.put(("scene", f"A customer, an agent and a chat server at {url}"))
        self._screen.put(("dim", "seconds, what, and its details; every event is shown with --json"))

    def scene(self, title: str) -> None:
        """A headline."""
        self._screen.put()
        self._screen.put(("scene", title))
        if self._progress is not None:
            self._progress.advance(self._task)

    def waiting(self, why: str) -> None:
        """Beside the progress display, if there is one."""
        if self._progress is not None:
            self._progress.update(self._task, description=f"waiting {why}" if why.startswith("for ") else why)

    def command(self, name: str, arguments: str) -> None:
        """A line."""
        self._row("command", ("command", f"{name}({arguments})"))

    def note(self, text: str) -> None:
        """A line."""
        self._row("", text=text)

    def stepped(self, step: Step) -> None:
        """A line where the state has changed."""
        self._steps.append(step)
        source, _, dest = step
        if source is not dest:
            self._row("state", ("state", f"{source} -> {dest}"))

    def happened(self, event: AnyEvent) -> None:
        """A line, and one more for each message; no line where other events have just told all of it."""
        lines = details(event)
        style = "trouble" if NOTICES.get(event.name, ("", ""))[0] == "trouble" else "event"
        if not isinstance(event.data, MessageReceived):
            self._row("event", (style, f"{event.name:<{WIDEST_EVENT}}"), text=lines[0])
        elif lines:
            self._row("event", (style, event.name))
            for line in lines:
                self._row("", ("plain", "  "), text=line)

    def warned(self, text: str) -> None:
        """A line."""
        self._row("warning", text=text)

    @contextmanager
    def playing(self, scenes: int) -> Iterator[None]:
        """Show the progress while the scenes are played, on a terminal."""
        if self._screen.console is None:
            yield
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        columns = (
            SpinnerColumn("dots" if wide(sys.stdout) else "line"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.description}", style="dim"),
        )
        with Progress(*columns, console=self._screen.console, transient=True) as self._progress:
            self._task = self._progress.add_task("", total=scenes)
            yield
        self._progress = None

    def close(self) -> None:
        """The path that was walked."""
        self._screen.put()
        self._screen.put(("scene", "The path that the state machine has walked"))
        for line in walked([step for step in self._steps if step[1] not in UNTOLD]).splitlines():
            self._screen.put(("plain", "  "), ("state", line))

    def _row(self, label: str, *parts: Part, text: str = "") -> None:
        since = clock.monotonic() - self._begun
        self._screen.put(("dim", f"{since:7.2f}  {label:<9}"), *parts, text=text)
