"""The message bus of the reference: plugins that publish, subscribe and give commands, synchronously.

Delivery equals the vendor's ``async: false`` mode, with one addition: an exception of a subscriber is logged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from webchat_fsm._model import Json
from webchat_fsm._runtime import clock
from webchat_fsm._runtime.locks import Uncopied
from webchat_fsm._runtime.outcome import Outcome

log = logging.getLogger("webchat_fsm")

NO_SUCH_PLUGIN = "Could not load plugin file in given location. Check your plugins path option."
NO_SUCH_COMMAND = "Command does not exist"
NO_OPTIONS = "Command options must be an object."
CANCELLED = "Command was cancelled by a 'before' function."


class BusEvent(Struct, frozen=True):
    """A published event: its full name, its data with the documented keys, its time in milliseconds, its publisher."""

    name: str
    data: Any
    time: int
    publisher: str

    @property
    def event(self) -> str:
        """Return the full name, as the vendor's subscribers read it."""
        return self.name


class CommandCall(Struct, frozen=True):
    """A command as its handler gets it; the handler returns an `Outcome`, or a value to resolve with."""

    command: str
    commander: str
    data: Json
    time: int


BusHandler = Callable[[BusEvent], object]
CommandHandler = Callable[[CommandCall], Any]
Before = Callable[[Json], Any]


class Mountable(Protocol):
    """A service that can be mounted on the bus."""

    def mount(self, plugin: Plugin) -> None:
        """Register commands and events on a plugin of its own."""
        ...


class Bus(Uncopied):
    """Connects plugins. May be used from any thread; handlers run with no lock held."""

    _instead = "register plugins on a new one"

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._plugins: dict[str, Plugin] = {}
        self._subscribers: dict[str, list[tuple[str, BusHandler]]] = {}
        self._befores: dict[str, list[Before]] = {}
        self._replayed: dict[str, BusEvent] = {}

    def __repr__(self) -> str:
        return f"<Bus {', '.join(self._plugins) or 'without plugins'}>"

    def register_plugin(self, name: str) -> Plugin:
        """Register a plugin under a name; raises `ValueError` where the name is taken or invalid."""
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"a plugin's name is a text without dots, not {name!r}")
        with self._lock:
            if name in self._plugins:
                raise ValueError(f"a plugin {name!r} is registered already")
            self._plugins[name] = plugin = Plugin(self, name)
        return plugin

    def register(self, service: Mountable, name: str = "WebChatService") -> Plugin:
        """Mount a service under a name, and return its plugin."""
        plugin = self.register_plugin(name)
        service.mount(plugin)
        return plugin

    # -- what plugins do -------------------------------------------------------------------------------------------

    def deliver(self, event: BusEvent, *, replay: bool = False) -> None:
        """Deliver an event to its subscribers, in the order of their subscription."""
        with self._lock:
            if replay:
                self._replayed[event.name] = event
            # Copied, as a handler may subscribe and unsubscribe, and runs with no lock held.
            handlers = list(self._subscribers.get(event.name, ()))
        for owner, handler in handlers:
            self._deliver_to(event, owner, handler)

    def _deliver_to(self, event: BusEvent, owner: str, handler: BusHandler) -> None:
        try:
            handler(event)
        except Exception:
            log.exception("a subscriber of %s to %s failed", owner, event.name)

    def listen(self, owner: str, name: str, handler: BusHandler) -> None:
        """Subscribe a handler; the latest republished event is delivered at once."""
        with self._lock:
            self._subscribers.setdefault(name, []).append((owner, handler))
            replayed = self._replayed.get(name) if name.partition(".")[0] in self._plugins else None
        if replayed is not None:
            self._deliver_to(replayed, owner, handler)

    def forget(self, owner: str, name: str) -> bool:
        """Remove all subscriptions of a plugin to an event; False where it never had a subscriber."""
        with self._lock:
            known = self._subscribers.get(name)
            if known is None:
                return False
            self._subscribers[name] = [entry for entry in known if entry[0] != owner]
            return True

    def intercept(self, name: str, before: Before) -> None:
        """Add a function that sees, and may replace, the options of a command before it runs."""
        with self._lock:
            self._befores.setdefault(name, []).append(before)

    def run(self, commander: str, name: str, data: Mapping[str, Any] | None) -> Outcome:
        """Give a command by its full name; unknown plugins and commands are rejected, not raised."""
        options: Any = {} if data is None else data
        if not isinstance(options, Mapping):
            return Outcome(resolved=False, reason=NO_OPTIONS)
        plugin_name, _, command = name.partition(".")
        with self._lock:
            plugin = self._plugins.get(plugin_name)
            befores = list(self._befores.get(name, ()))
        if plugin is None:
            return Outcome(resolved=False, reason=NO_SUCH_PLUGIN)
        handler = plugin.commands.get(command)
        if handler is None:
            return Outcome(resolved=False, reason=NO_SUCH_COMMAND)
        for before in befores:
            # Each gets a copy: what one has changed counts only where it is returned.
            options = before(dict(options))
            if not isinstance(options, Mapping):
                return Outcome(resolved=False, reason=CANCELLED)
        value = handler(CommandCall(command, commander, dict(options), _now()))
        return value if isinstance(value, Outcome) else Outcome(resolved=True, value=value)

    def read(self, name: str, key: str) -> Any:
        """Return a data value of a plugin, None where there is none."""
        with self._lock:
            plugin = self._plugins.get(name)
        return None if plugin is None else plugin.values.get(key)

    def known(self) -> dict[str, dict[str, list[str]]]:
        """Return the plugins with their commands and events."""
        with self._lock:
            plugins = dict(self._plugins)
        return {
            name: {"commands": sorted(plugin.commands), "events": sorted(plugin.events)}
            for name, plugin in plugins.items()
        }

    def listeners(self, name: str) -> list[str]:
        """Return the names of the plugins that have subscribed to an event."""
        with self._lock:
            return [owner for owner, _ in self._subscribers.get(name, ())]


def _spelled(value: Any) -> str:
    """Return the text of a value in an event's name, as the vendor's bus writes it."""
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def _now() -> int:
    return round(clock.SystemClock().wall() * 1000)


class Plugin(Uncopied):
    """A plugin's interface to the bus; a name without a dot is one of its own."""

    _instead = "register one under another name"

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._name = name
        self._is_ready = False
        self.commands: dict[str, CommandHandler] = {}
        self.events: set[str] = set()
        self.values: dict[str, Any] = {}
        self.register_command("COMMANDS", lambda call: sorted(self.commands))
        self.register_command("EVENTS", lambda call: sorted(self.events))

    def __repr__(self) -> str:
        return f"Plugin({self._name!r})"

    def _full(self, name: str) -> str:
        return name if "." in name else f"{self._name}.{name}"

    def command(self, name: str, data: Mapping[str, Any] | None = None) -> Outcome:
        """Give a command; an unknown one is rejected with ``Command does not exist``."""
        return self._bus.run(self._name, self._full(name), data)

    def subscribe(self, name: str, handler: BusHandler) -> str:
        """Call the handler with each `BusEvent` of that name; returns the full name."""
        if not callable(handler):
            raise TypeError(f"a subscriber must be callable, not {type(handler).__name__}")
        self._bus.listen(self._name, self._full(name), handler)
        return self._full(name)

    def unsubscribe(self, name: str) -> bool:
        """Remove all own subscriptions to an event; False where it never had a subscriber."""
        return self._bus.forget(self._name, self._full(name))

    def publish(self, name: str, data: Any = None) -> bool:
        """Publish an own event; its data default to an empty object."""
        return self._publish(name, data)

    def republish(self, name: str, data: Any = None) -> bool:
        """Publish, and replay the latest to each later subscriber."""
        return self._publish(name, data, replay=True)

    def publish_direct(self, name: str, data: Any = None) -> bool:
        """Publish without a log line; here the same as `publish`, as the bus logs none."""
        return self._publish(name, data)

    def publish_service_event(self, name: str, data: Any, time: int, *, replay: bool = False) -> None:
        """Publish an event of a mounted service, with the milliseconds of its own clock."""
        self._publish(name, data, replay=replay, time=time)

    def _publish(self, name: str, data: Any, *, replay: bool = False, time: int | None = None) -> bool:
        event = BusEvent(self._full(name), {} if data is None else data, _now() if time is None else time, self._name)
        self._bus.deliver(event, replay=replay)
        return True

    def before(self, name: str, function: Before) -> None:
        """Add a function that gets a command's options; its result replaces them, and one that is no object cancels."""
        self._bus.intercept(self._full(name), function)

    def register_command(self, name: str, handler: CommandHandler) -> None:
        """Register a command; the handler gets a `CommandCall` and returns an `Outcome` or a value."""
        self.commands[name] = handler

    def register_events(self, names: str | list[str]) -> None:
        """Register own events for `registry`; an event can be published without."""
        self.events.update([names] if isinstance(names, str) else names)

    def registry(self) -> dict[str, dict[str, list[str]]]:
        """Return all plugins with their commands and events."""
        return self._bus.known()

    def subscribers(self, name: str) -> list[str]:
        """Return the names of the plugins that have subscribed to an event."""
        return self._bus.listeners(self._full(name))

    @property
    def namespace(self) -> str:
        """Return the plugin's name."""
        return self._name

    def data(self, *given: Any) -> Any:
        """Return all own values, or one by ``data(name)``; ``data(name, value)`` sets it.

        ``data("Other.name")`` reads that of another plugin. Setting a changed value publishes ``data``,
        ``data.<name>`` and ``data.<name>:<value>``.
        """
        if not given:
            return dict(self.values)
        name = str(given[0])
        if len(given) == 1:
            owner, _, key = self._full(name).partition(".")
            return self._bus.read(owner, key)
        last, value = self.values.get(name), given[1]
        self.values[name] = value
        if value != last:
            self._publish_change(name, last, value)
        return value

    def _publish_change(self, name: str, last: Any, value: Any) -> None:
        change = {"last": last, "value": value, "time": _now()}
        for event in ("data", f"data.{name}", f"data.{name}:{_spelled(value)}"):
            self._publish(f"{self._name}.{event}", change)

    def ready(self) -> None:
        """Mark this plugin as set up; commands work before that too, so it only sets `is_ready`."""
        self._is_ready = True

    @property
    def is_ready(self) -> bool:
        """Return whether `ready` was called."""
        return self._is_ready
