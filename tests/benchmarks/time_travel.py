"""Measure tests in manual time, and check that replays are identical: ``python -m tests.benchmarks.time_travel``.

Figures hold for one machine at one time. `--sessions N` generates N sessions (10,000), over all transports.
"""

from __future__ import annotations

import argparse
import random
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial

from webchat_fsm import ChatEvent, MemoryStore
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import Recording, TestServer, Timeline, replay

ROUNDS = 50
KINDS = ("injected", "time-machine", "freezegun")


def sixty_seconds(kind: str) -> None:
    """Run the 60-second test: a chat, an agent, 60.001 s away, too late to restore."""
    with Timeline.frozen(kind) as timeline:
        server, store = TestServer(timeline), MemoryStore()
        chat = server.client(store=store)
        chat.open()
        chat.start_chat(nickname="Jonny")
        server.agent("Ann").join().say("Hello")
        timeline.advance(3.0)
        chat.close()
        timeline.advance(60.001)
        later = server.client(store=store)
        with timeline.expect(later, "restoreTimeout"):
            later.open()
        server.close()


def one_minute_chat(kind: str) -> None:
    """Run a minute with the chat open: some 25 polls."""
    with Timeline.frozen(kind) as timeline:
        server = TestServer(timeline)
        chat = server.client()
        chat.open()
        chat.start_chat(nickname="Jonny")
        timeline.advance(60)
        server.close()


def milliseconds(test: Callable[[str], None], kind: str) -> str:
    """Return the median and the worst of several rounds; the first one, which imports, is left out."""
    test(kind)
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        test(kind)
        rounds.append((time.perf_counter() - begun) * 1000)
    return f"{statistics.median(rounds):6.2f} ms   (worst {max(rounds):.2f})"


def steps_a_second(kind: str, services: int = 20, seconds: float = 120) -> float:
    """Return the timers run per second of real time, each with a poll and its answer, freeze and starts included."""
    begun = time.perf_counter()  # freezegun freezes this clock too, so it is read outside
    with Timeline.frozen(kind) as timeline:
        server = TestServer(timeline)
        for _ in range(services):
            chat = server.client(config={"dynamicPolling": False, "pollRate": 1000})
            chat.open()
            chat.start_chat(nickname="Jonny")
        timeline.advance(seconds)
        steps = len(server.core.requests)
        server.close()
    return steps / (time.perf_counter() - begun)


COMMANDS: tuple[tuple[str, dict[str, object]], ...] = (
    ("sendMessage", {"message": "hello"}),
    ("sendTyping", {"message": "h"}),
    ("updateUserData", {"page": "/help"}),
    ("startPoll", {}),
    ("stopPoll", {}),
    ("endChat", {}),
    ("startChat", {"nickname": "Jonny"}),
)


def generated(seed: int) -> Recording:
    """Record a random session: commands, people, faults and times in any order; the seed selects the transport."""
    draw, transport = random.Random(seed), list(Transport)[seed % 4]
    timeline = Timeline()
    server = TestServer(timeline)
    server.records = True
    chat = server.client(transport)
    chat.open()
    chat.start_chat(nickname="Jonny")
    ann = server.agent("Ann").join()
    server.draw_faults(seed, 6, transport=transport)
    for _ in range(draw.randint(4, 12)):
        kind = draw.random()
        if kind < 0.5:
            chat.command(*draw.choice(COMMANDS[: 5 if draw.random() < 0.9 else 7]))
        elif kind < 0.7 and ann.is_in(server.core.current_chat()):
            draw.choice((ann.typing, lambda: ann.say("hello")))()
        timeline.advance(draw.choice((0.0, 0.4, 1.0, 3.0, 10.0)))
    server.close()
    return server.recording(chat)


def replays(sessions: int) -> None:
    """Generate, replay and compare the given number of sessions."""
    made = played = 0.0
    events = transitions = same = 0
    for seed in range(sessions):
        begun = time.perf_counter()
        recording = generated(seed)
        made += time.perf_counter() - begun
        begun = time.perf_counter()
        again = replay(recording)
        played += time.perf_counter() - begun
        same += again.same and again.events == recording.events and again.transitions == recording.transitions
        events += len(again.events)
        transitions += len(again.transitions)
    print(f"\n{sessions} generated sessions, {transitions} transitions, {events} events")
    print(f"  replayed identically                {same} of {sessions}")
    print(f"  recorded                            {sessions / made:8.0f} sessions a second")
    print(f"  replayed                            {sessions / played:8.0f} sessions a second")


def _note(trace: list[tuple[float, str]], timeline: Timeline, event: ChatEvent[object]) -> None:
    trace.append((timeline.now(), event.name))


def traces() -> None:
    """Run the same test on each clock, and compare the events and their times."""
    found = []
    for kind in KINDS:
        trace: list[tuple[float, str]] = []
        with Timeline.frozen(kind) as timeline:
            server = TestServer(timeline)
            chat = server.client()
            note = partial(_note, trace, timeline)
            for name in EVENTS:
                chat.subscribe(name, note)
            chat.open()
            chat.start_chat(nickname="Jonny")
            server.draw_faults(1, 10)
            server.agent("Ann").join()
            timeline.advance(200)
            server.close()
        found.append(trace)
    print(f"\nidentical traces on {', '.join(KINDS)}: {found[0] == found[1] == found[2]} ({len(found[0])} events)")


def main() -> None:
    """Print all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    options = parser.parse_args()
    print(
        f"some {5 + options.sessions // 120} seconds on a machine of two cores; most of it for --sessions", flush=True
    )
    for title, test in (("the 60-second restore test", sixty_seconds), ("a minute in a chat", one_minute_chat)):
        print(f"\n{title}")
        for kind in KINDS:
            print(f"  {kind:<14} {milliseconds(test, kind)}")
    print("\ntimeline steps a second, each with a poll and its answer")
    for kind in KINDS:
        print(f"  {kind:<14} {steps_a_second(kind):9.0f}")
    traces()
    replays(options.sessions)
    print(f"\nthreads alive: {[thread.name for thread in threading.enumerate()]}")


if __name__ == "__main__":
    main()
