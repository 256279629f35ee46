"""Two threads made to meet on purpose: each stops at every lock, request and delivery, and only one runs at a time.

A schedule says who begins and at which stops the other takes over. Left alone, a thread runs on until it ends or must
wait. `walk` tries every schedule with up to so many takings-over, so that nothing is left to luck or to the machine.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

LONGEST = 2000
"""Stops of one run; more would be a thread that runs in circles."""


class Stuck(AssertionError):
    """Neither thread can go on."""


class Player(threading.Thread):
    """One of the two threads, with what it does."""

    def __init__(self, turns: Turns, number: int, act: Callable[[], object]):
        super().__init__(name=f"player {number}", daemon=True)
        self.turns, self.number, self.act = turns, number, act
        self.go = threading.Semaphore(0)
        self.waits_for: Callable[[], bool] | None = None
        self.may_give_up = False
        self.ended = False
        self.result: object = None
        self.error: BaseException | None = None

    def run(self):
        self.go.acquire()
        try:
            if not self.turns.stuck:
                self.result = self.act()
        except BaseException as error:
            self.error = error
        self.ended = True
        self.turns.pass_on(self)

    @property
    def can_go_on(self) -> bool:
        return not self.ended and (self.waits_for is None or self.waits_for())


class Turns:
    """Who may run: player 0 or player 1, changed at the stops of a schedule."""

    def __init__(self, first: int = 0, takeovers: frozenset[int] = frozenset()):
        self.first, self.takeovers = first, takeovers
        self.stops: list[str] = []
        self.stuck = False
        self._players: list[Player] = []
        self._over = threading.Semaphore(0)

    def play(self, *acts: Callable[[], object]) -> list[Player]:
        """Run both to their ends."""
        self._players = [Player(self, number, act) for number, act in enumerate(acts)]
        for player in self._players:
            player.start()
        self._players[self.first].go.release()
        self._over.acquire()
        for player in self._players:
            player.join(10)
        return self._players

    def _me(self) -> Player | None:
        return next((player for player in self._players if player is threading.current_thread()), None)

    def stop(self, label: str) -> None:
        """A stop: the schedule may let the other take over here."""
        me = self._me()
        if me is None or self.stuck:
            return
        self.stops.append(f"{me.number} {label}")
        if len(self.stops) > LONGEST:
            self._give_up()
            raise Stuck("a thread runs in circles:\n" + "\n".join(self.stops[-20:]))
        other = self._players[1 - me.number]
        if len(self.stops) - 1 in self.takeovers and other.can_go_on:
            self._switch(me, other)

    def wait(self, ready: Callable[[], bool], *, may_give_up: bool = False) -> bool:
        """Wait until something holds; False where it never will, and giving up is allowed."""
        me = self._me()
        while me is not None and not ready():
            other = self._players[1 - me.number]
            if other.can_go_on:
                me.waits_for, me.may_give_up = ready, may_give_up
                self._switch(me, other)
                me.waits_for = None
            elif may_give_up:
                return False
            elif other.may_give_up and not other.ended:
                me.waits_for = ready
                other.waits_for = None
                self._switch(me, other)
                me.waits_for = None
            else:
                self._give_up()
                raise Stuck("both threads wait:\n" + "\n".join(self.stops[-20:]))
            if self.stuck:
                raise Stuck("the other thread is stuck")
        return True

    def _switch(self, me: Player, other: Player) -> None:
        other.go.release()
        me.go.acquire()

    def pass_on(self, me: Player) -> None:
        """A player has ended: the other goes on, if there is one."""
        other = self._players[1 - me.number]
        if other.ended:
            self._over.release()
        else:
            other.waits_for = None if other.may_give_up or other.can_go_on else other.waits_for
            other.go.release()

    def _give_up(self) -> None:
        self.stuck = True


class Lock:
    """A lock that stops before it is taken."""

    def __init__(self, turns: Turns, name: str):
        self._turns, self._name = turns, name
        self._held = False

    def __enter__(self):
        self._turns.stop(self._name)
        self._turns.wait(lambda: not self._held)
        self._held = True

    def __exit__(self, *error):
        self._held = False


class Door:
    """A lock that its holder may take again, and that one may give up waiting for."""

    def __init__(self, turns: Turns, name: str):
        self._turns, self._name = turns, name
        self._holder: threading.Thread | None = None
        self._times = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = threading.current_thread()
        self._turns.stop(self._name)
        if not blocking and self._holder not in (None, me):
            return False
        if not self._turns.wait(lambda: self._holder in (None, me), may_give_up=timeout >= 0):
            return False
        self._holder, self._times = me, self._times + 1
        return True

    def release(self) -> None:
        if self._holder is not threading.current_thread():
            raise RuntimeError("not taken here")
        self._times -= 1
        if not self._times:
            self._holder = None

    def __enter__(self):
        self.acquire()

    def __exit__(self, *error):
        self.release()


class Condition(Lock):
    """A condition whose waits end by a notice, or, where none can come any more, by their time-out."""

    def __init__(self, turns: Turns, name: str):
        super().__init__(turns, name)
        self._notices = 0

    def wait(self, timeout: float | None = None) -> bool:
        seen, self._held = self._notices, False
        noticed = self._turns.wait(lambda: self._notices != seen, may_give_up=timeout is not None)
        self._turns.wait(lambda: not self._held)
        self._held = True
        return noticed

    def wait_for(self, reached: Callable[[], object], timeout: float | None = None) -> bool:
        while not reached():
            if not self.wait(timeout):
                return bool(reached())
        return True

    def notify_all(self) -> None:
        self._notices += 1


class StoppingHttp:
    """An `http=` that stops before each request and after each answer."""

    def __init__(self, inner, turns: Turns):
        self._inner, self._turns = inner, turns

    def send(self, request):
        self._turns.stop(f"request {request.operation}")
        answer = self._inner.send(request)
        self._turns.stop(f"answer {request.operation}")
        return answer

    def cut(self):
        self._inner.cut()

    def close(self):
        self._inner.close()


def schedules(takeovers: int, stops: Callable[[], int]) -> Iterator[tuple[int, frozenset[int]]]:
    """Who begins, and where the other takes over; `stops` is how many stops the longest run so far has had."""
    for first in (0, 1):
        for number in range(takeovers + 1):
            for chosen in itertools.takewhile(lambda one: one[-1:] < (stops(),), _ascending(number)):
                yield first, frozenset(chosen)


def _ascending(number: int) -> Iterator[tuple[int, ...]]:
    """All ascending tuples of that length, by their last number."""
    if number == 0:
        yield ()
        return
    for last in itertools.count():
        for rest in itertools.combinations(range(last), number - 1):
            yield (*rest, last)


def walk(play: Callable[[Turns], object], takeovers: int) -> int:
    """Play every schedule; gives their number. A failure tells the schedule and its last stops."""
    lengths = [1]
    for first, chosen in schedules(takeovers, lambda: max(lengths)):
        turns = Turns(first, chosen)
        try:
            play(turns)
        except AssertionError as error:
            stops = "\n".join(f"{'>' if n in chosen else ' '} {stop}" for n, stop in enumerate(turns.stops))
            error.add_note(f"player {first} began, the other took over at the marked stops:\n{stops}")
            raise
        lengths.append(len(turns.stops))
    return len(lengths) - 1
