"""Mutate the lifecycle and the core, and report the mutants that no test notices: `python -m tests.mutation [--all]`.

Two kinds of mutants. Of the lifecycle's table each row is removed, and of each row each guard, publication, condition,
flag and effect. In the core each comparison, constant, `and`, `or`, `not` and truth value is changed, and each
statement that calls, assigns to an attribute or leaves a block is removed. The sample takes every nth of each kind,
and runs the tests of one for a few seconds of processor time, the likely ones first: nearly all the time would go to
the few that survive. `--all` takes all mutants, and lets none survive before every test that reaches it has run.

One process imports everything and collects the tests once. A process is forked from it for each mutant, replaces the
code there and runs the tests until the first one fails: those first that noticed most mutants before. What is evaluated
while a module is imported cannot be replaced later, so that such a mutant is imported, and its tests collected, in a
process forked before. No file is ever changed.

The drawings' own tests are left out: they compare files with the table, and so would notice each row without checking
its behaviour.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import gc
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from copy import deepcopy
from functools import cache, partial
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple, NoReturn, TextIO

import pytest

os.environ.setdefault("WEBCHAT_EXAMPLES", "all")  # before a test is imported: fewer examples notice fewer mutants

ROOT = Path(__file__).parents[1]
TABLE, MACHINE = "webchat_fsm.lifecycle._table", "webchat_fsm._core.machine"
SAMPLE = {"table": 60, "core": 60}
"""How many mutants of each kind a sample has: what two cores run in two minutes, with the first run of the tests."""

SAMPLE_SECONDS = 10.0
"""Seconds of processor time after which a mutant of a sample has survived."""

TESTS = ["tests/core", "tests/lifecycle", "tests/nexus", "tests/runtime/test_store.py", "tests/cometd"]
"""The tests that a mutant has to survive, the quickest first."""

LIBRARIES = (
    "aiohttp.web", "freezegun", "hypothesis", "msgspec", "time_machine", "transitions", "trustme", "urllib3",
    "websockets.client", "websockets.server", "xdist",
)  # fmt: skip

LIMIT, TEST_LIMIT = 400, 10
"""Seconds of all the tests of a mutant, and of one test: an endless loop counts as a failure."""

MEMORY = 4 << 30
"""Bytes that a mutant may allocate: an endless loop may fill a list."""

LEAST = {"table": 0.99, "core": 0.83}
"""The share of each kind that has to be killed: a survivor is listed, and fails the run only among many."""

NOTES = ROOT / ".venvs/mutants"
"""Where one run leaves what the tests reach, and which of them noticed which mutant, for the next."""

TYPING_OVER = "the core fires `typing over` only while the user types"
ALIVE = "the core fires `connect answered` only while `disconnected` is set, so that not each connect is logged"
FAR = "the steps before an index begin at a number that no chat reaches, whichever it is"
EQUIVALENT: dict[str, str] = {
    "when of clientTypingStopped of active + typing over -> active": TYPING_OVER,
    "when of clientTypingStopped of polling + typing over -> polling": TYPING_OVER,
    "when of clientTypingStopped of offline + typing over -> offline": TYPING_OVER,
    "when of reconnected of active + connect answered [transport pushes] -> active": ALIVE,
    "when of reconnected of offline + connect answered [transport pushes] -> offline": ALIVE,
    "context.DecisionContext._set_timers: row.dest.has_session and (not row.source.has_session) "
    "-> row.dest.has_session or not row.source.has_session":
        "`watch_input` looks at the state itself, and leaves a timer that is set as it is",
    "context.DecisionContext.__init__: False -> True": "`decide` names both of these arguments",
    "context.DecisionContext.__init__: False -> True (2)": "`decide` names both of these arguments",
    "effects.Call: 0.0 -> 1.0": "a request that is made names its pause, and no other call is waited for",
    "transcript.OrderedTranscript.back_to: len(self._entries) > entries -> len(self._entries) >= entries":
        "where no entry was added, none is taken out",
    "receipts._settle: earlier.place > place -> earlier.place >= place":
        "of two sends to which the server has given one place, the message there has settled the earlier",
    "session.Session.back_to: True -> False": "values and names come from one list, so that both are of one length",
    "placement._is_all_low: len(events) > 1 -> len(events) >= 1": "an answer of one event is in order in any case",
    "transcript.OrderedTranscript.clear: False -> True": "the first answer sets it, before any other asks for it",
    "transcript: 2 -> 3": FAR,
    "transcript: 62 -> 63": FAR,
    "paging.Pages: False -> True": "the first page sets it: a restore whose first page is refused has no pages",
    "defects._Fallback._perform: session.failures = session.config.poll_exception_limit + 1 -> pass":
        "no row of a trigger that the fallback fires has that effect",
    "defects._Fallback._poll_again: return -> pass":
        "a transport that polls has a connection that was never begun, which ignores the trigger",
}  # fmt: skip
"""The mutants that behave as the code does, and why; they are left out."""


class Mutant(NamedTuple):
    """One change: of which kind, in which module, in words, and the function that makes it in the module's tree.

    `keys` say what a test has to reach to meet the change, and `near` what like mutants have in common. `row` is the
    code that replaces the table in a process that has imported it, `function` the qualified name and line of the
    function around a change of the core; without either the change needs a new import.
    """

    kind: str
    module: str
    words: str
    change: Callable[[ast.Module], None]
    keys: frozenset[str]
    near: str
    row: str = ""
    function: tuple[str, int] | None = None

    @property
    def warm(self) -> bool:
        """Return whether a process that has imported the package can make the change."""
        return bool(self.row or self.function)


class Changing(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Compiles a module with a change, and leaves all others to the ordinary import."""

    def __init__(self, module: str, change: Callable[[ast.Module], None]) -> None:
        self.change = change
        super().__init__(module, str(file_of(module)))

    def find_spec(self, fullname, path=None, target=None):
        """Return a spec for that module alone."""
        return (
            importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None
        )

    def get_code(self, fullname):
        """Compile the changed tree; a compiled file of the unchanged one is not looked at."""
        return compiled(fullname, self.change)


def file_of(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


@cache
def source_of(module: str) -> str:
    return file_of(module).read_text(encoding="utf-8")


def parsed(module: str) -> ast.Module:
    return ast.parse(source_of(module))


def compiled(module: str, change: Callable[[ast.Module], None]) -> CodeType:
    tree = parsed(module)
    change(tree)
    return compile(ast.fix_missing_locations(tree), str(file_of(module)), "exec")


# -- the table -----------------------------------------------------------------------------------------------------


def replaced(code: str) -> Callable[[ast.Module], None]:
    """Return a change that puts a statement behind the one that makes the table, before anything reads it."""

    def change(tree: ast.Module) -> None:
        at = next(
            number
            for number, node in enumerate(tree.body)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "TRANSITIONS"
        )
        tree.body[at + 1 : at + 1] = ast.parse(code).body

    return change


REPLACE = "__import__('msgspec.structs').structs.replace"
"""The function that copies a row with other fields, as the table itself does not import it."""


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield the words, the statement and the key of each mutant, in a process that may import the package."""
    from webchat_fsm.lifecycle import TRANSITIONS

    for number, row in enumerate(TRANSITIONS):
        guards = "".join(f" [{guard}]" for guard in row.guards)
        name, key = f"{row.source} + {row.trigger}{guards} -> {row.dest}", fired(row.source, row.trigger)
        around = f"TRANSITIONS = TRANSITIONS[:{number}] + %s + TRANSITIONS[{number + 1}:]"
        less = f"(lambda row: ({REPLACE}(row, %s),))(TRANSITIONS[{number}])"
        yield f"row {name}", around % "()", key
        for field in ("guards", "publishes", "sets", "clears", "effects"):
            for place, value in enumerate(getattr(row, field)):
                new = f"{field}=row.{field}[:{place}] + row.{field}[{place + 1}:]"
                yield f"{field} {getattr(value, 'event', value)!s} of {name}", around % (less % new), key
        for place, published in enumerate(row.publishes):
            for condition in ("when", "unless"):
                if getattr(published, condition):
                    bare = f"{REPLACE}(row.publishes[{place}], {condition}=())"
                    new = f"publishes=row.publishes[:{place}] + ({bare},) + row.publishes[{place + 1}:]"
                    yield f"{condition} of {published.event} of {name}", around % (less % new), key


def of_the_table() -> Iterator[Mutant]:
    """Yield a mutant for each row, and for each guard, publication, condition, flag and effect of each row."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # this process must not import the package
        for words, code, key in pool.submit(listed).result():
            yield Mutant("table", TABLE, words, replaced(code), frozenset({key}), key, row=code)


def listed() -> list[tuple[str, str, str]]:
    return [*rows()]


def fired(state: str, trigger: str) -> str:
    return f"{state} + {trigger}"


# -- the core ------------------------------------------------------------------------------------------------------

OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip

FUNCTIONS = (ast.FunctionDef, ast.Lambda)
PLAIN = {"property", "staticmethod", "classmethod"}
"""Decorators that keep the function as it is; any other one has been called with it at the import."""


def changed(node: ast.AST) -> ast.AST | None:
    """Return the mutated copy of a node, None where this kind of node is left alone."""
    new = deepcopy(node)
    if isinstance(new, ast.Compare):
        new.ops[0] = OPPOSITE[type(new.ops[0])]()
    elif isinstance(new, ast.BoolOp):
        new.op = ast.Or() if isinstance(new.op, ast.And) else ast.And()
    elif isinstance(new, ast.UnaryOp) and isinstance(new.op, ast.Not):
        return new.operand
    elif isinstance(new, ast.Constant) and isinstance(new.value, bool):
        new.value = not new.value
    elif isinstance(new, ast.Constant) and isinstance(new.value, int | float):
        new.value += 1
    else:
        return ast.Pass() if removable(new) else None
    return new


def removable(node: ast.AST) -> bool:
    """Return whether a statement can be left out without its names being missed further down."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets)
    if isinstance(node, ast.Return):
        return node.value is None
    return isinstance(node, ast.AugAssign | ast.Continue | ast.Break | ast.Delete | ast.Raise)


class Place(NamedTuple):
    """A node that can be mutated, where it is, and the function around it, if that can be replaced."""

    parent: ast.AST
    field: str
    index: int | None
    node: ast.AST
    within: str
    function: tuple[str, int] | None
    statement: ast.stmt | None
    inside: bool
    """Whether it is in a function's body."""


def places(tree: ast.Module) -> Iterator[Place]:
    """Yield each node that can be mutated, in the order of the source."""
    at_import = called_at_import(tree)

    def visit(parent: ast.AST, place: Place) -> Iterator[Place]:
        for field, index, node in children(parent):
            here = place._replace(parent=parent, field=field, index=index, node=node)
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                here = here._replace(within=f"{place.within}.{node.name}".lstrip("."))
            if isinstance(parent, ast.FunctionDef) and field == "body" and not place.inside:
                here = here._replace(function=replaceable(parent, place.within, at_import), inside=True)
            if isinstance(node, ast.stmt):
                here = here._replace(statement=node)
            if changed(node) is not None:
                yield here
            yield from visit(node, here)

    yield from visit(tree, Place(tree, "", None, tree, "", None, None, inside=False))


def children(parent: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    """Yield the nodes in a node with their field and index, but for types, class arguments and steps of counters."""
    for field, value in ast.iter_fields(parent):
        if field in {"annotation", "returns", "keywords"} and not isinstance(parent, ast.Call):
            continue  # types decide nothing, and `frozen=True` of a struct is no behaviour
        if isinstance(parent, ast.AugAssign) and isinstance(value, ast.Constant):
            continue  # a ticket need only differ from the one before: the statement is removed instead
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(node, ast.AST):
                yield field, index, node


def replaceable(node: ast.FunctionDef, name: str, at_import: set[str]) -> tuple[str, int] | None:
    """Return the name and line of a function, None where it may have run when its module was imported."""
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if node.name in at_import or decorators - PLAIN:
        return None
    return name, min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def called_at_import(tree: ast.Module) -> set[str]:
    """Return the names that statements outside functions call."""
    found = set()
    edge: list[ast.AST] = [*tree.body]
    while edge:
        node = edge.pop()
        if isinstance(node, ast.Call):
            found.add(getattr(node.func, "id", getattr(node.func, "attr", "")))
        edge += [] if isinstance(node, FUNCTIONS) else ast.iter_child_nodes(node)
    return found


def at(number: int) -> Callable[[ast.Module], None]:
    """Return the change of the nth place of a module."""

    def change(tree: ast.Module) -> None:
        place = [*places(tree)][number]
        if place.index is None:
            setattr(place.parent, place.field, changed(place.node))
        else:
            getattr(place.parent, place.field)[place.index] = changed(place.node)

    return change


def core() -> list[str]:
    """Return the names of the core's modules."""
    paths = sorted((ROOT / "webchat_fsm/_core").rglob("[!_]*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]


def of_the_core() -> Iterator[Mutant]:
    """Yield a mutant for each comparison, constant, truth value and removable statement of the core."""
    for module in core():
        alike: Counter[str] = Counter()
        for number, place in enumerate(places(parsed(module))):
            old, new = ast.unparse(place.node).splitlines()[0], ast.unparse(changed(place.node)).splitlines()[0]
            near = f"{module.rpartition('.')[2]}.{place.within}".rstrip(".")
            words = f"{near}: {old[:70]} -> {new[:70]}"
            alike[words] += 1
            words += f" ({alike[words]})" if alike[words] > 1 else ""
            function = None if module == MACHINE else place.function
            yield Mutant("core", module, words, at(number), keys_of(module, place), near, function=function)


def keys_of(module: str, place: Place) -> frozenset[str]:
    """Return the statements of which a test has to reach one to meet a change: those that read a changed constant."""
    if place.inside:
        return frozenset({line(module, place.statement)})
    targets = getattr(place.statement, "targets", [getattr(place.statement, "target", None)])
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    found = {key for name in names for key in readers().get(name, ())}
    return frozenset(found or {key for key in set().union(*readers().values()) if key.startswith(f"{module}:")})


@cache
def readers() -> dict[str, set[str]]:
    """Map each name to the statements in functions of the core that read it."""
    found: dict[str, set[str]] = defaultdict(set)
    for module in core():
        for statement in statements(parsed(module)):
            for node in ast.walk(statement):
                name = getattr(node, "id", getattr(node, "attr", None))
                if isinstance(name, str):
                    found[name].add(line(module, statement))
    return found


def line(module: str, statement: ast.stmt) -> str:
    return f"{module}:{statement.lineno}"


def blocks(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """Yield each block of statements that is in a function."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                for field in ("body", "orelse", "finalbody"):
                    if isinstance(block := getattr(node, field, None), list):
                        yield block


def statements(tree: ast.Module) -> list[ast.stmt]:
    return [statement for block in blocks(tree) for statement in block]


# -- what each test reaches ----------------------------------------------------------------------------------------

REACHED: set[str] = set()
"""The statements of the core that have run, and the triggers that were fired in which states."""


def noting(module: str) -> Callable[[ast.Module], None]:
    """Return a change that notes each statement of a module's functions as it runs."""

    def change(tree: ast.Module) -> None:
        for block in {id(block): block for block in blocks(tree)}.values():
            for statement in [*block]:
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                    note = ast.parse(f"__reached__({line(module, statement)!r})").body[0]
                    block.insert(block.index(statement), note)

    return change


def note_what_is_reached() -> None:
    """Let everything that is imported from now on note what runs."""
    vars(builtins)["__reached__"] = REACHED.add
    sys.meta_path[:0] = [Changing(module, noting(module)) for module in core() if module != MACHINE]
    machine = importlib.import_module(MACHINE)
    fire = machine.fire

    def noted(session, trigger):
        REACHED.add(fired(session.state, trigger))
        return fire(session, trigger)

    machine.fire = noted


# -- running -------------------------------------------------------------------------------------------------------

Result = tuple[Mutant, str, float]
"""A mutant, the test that noticed it or "" where none did, and the seconds that this took."""


class Known:
    """What is known of the tests: what each reaches, its seconds, and which mutants it has noticed.

    It is kept for the next run; what a test file reaches is found out again once that file or any other than a test has
    changed.
    """

    def __init__(self) -> None:
        self.killed_by: dict[str, str] = read(NOTES / "killed.json")
        self.kills: dict[str, Counter[str]] = defaultdict(Counter)
        self.reached: dict[str, set[str]] = {}
        self.seconds: dict[str, float] = {}
        for words, test in self.killed_by.items():
            self._count(words.partition(": ")[0], test)

    def note(self, mutant: Mutant, test: str) -> None:
        """Remember what has become of a mutant."""
        self.killed_by[mutant.words] = test
        self._count(mutant.near, test)

    def _count(self, near: str, test: str) -> None:
        if test:
            self.kills[""][test] += 1
            self.kills[near][test] += 1

    def order(self, mutant: Mutant, items: list[pytest.Item]) -> list[pytest.Item]:
        """Return the tests that meet a mutant, those first that are likely to notice it.

        These are the one that has noticed it, those that have noticed its like, those whose names have words in common
        with it, those that have noticed many, and the quick ones.
        """
        met = [item for item in items if self.meets(item.nodeid, mutant)]
        first, alike, all_ = self.killed_by.get(mutant.words), self.kills[mutant.near], self.kills[""]
        names = {item.nodeid: words_of(item.nodeid) for item in met}
        often = Counter(word for words in names.values() for word in words)
        common = words_of(mutant.words) & often.keys()

        def rank(item: pytest.Item) -> tuple[bool, int, float, int, float]:
            test = item.nodeid
            shared = sum(1 / often[word] for word in common & names[test])
            return test != first, -alike[test], -shared, -all_[test], self.seconds[test]

        return sorted(met, key=rank)

    def meets(self, test: str, mutant: Mutant) -> bool:
        """Return whether a test reaches a change; one that steps no session may read the table itself."""
        reached = self.reached.get(test)
        if reached is None:  # it fails without a mutant
            return False
        return not (mutant.keys and mutant.keys.isdisjoint(reached)) or (mutant.kind == "table" and not reached)

    def learn(self, items: list[pytest.Item], work: Path, loop: Loop) -> list[str]:
        """Run the tests of which is not known what they reach, and return those that fail."""
        notes, files = read(NOTES / "reached.json"), defaultdict[str, list[pytest.Item]](list)
        for item in items:
            files[item.nodeid.partition("::")[0]].append(item)
        digests = {file: digest(ROOT / file, *others()) for file in files}
        notes = {file: note for file, note in notes.items() if note["digest"] == digests.get(file)}
        missing = [file for file in files if file not in notes]
        jobs = [partial(observe, files[file], loop, work) for file in missing]
        failing: list[str] = []
        for number, result, _ in side_by_side(jobs, work):
            found = json.loads(result)
            failing += found["failing"]
            found["tests"] = {test: seen for test, seen in found["tests"].items() if test not in found["failing"]}
            notes[missing[number]] = {
                "digest": digests[missing[number]],
                "tests": found["tests"],
                "keys": found["keys"],
            }
        for file in {test.partition("::")[0] for test in failing}:  # to be run again the next time
            notes[file]["digest"] = ""
        write(NOTES / "reached.json", notes)
        self.load()
        return failing

    def load(self) -> None:
        """Read what the tests reach."""
        for note in read(NOTES / "reached.json").values():
            for test, (seconds, keys) in note["tests"].items():
                self.reached[test], self.seconds[test] = {note["keys"][key] for key in keys}, seconds


@cache
def words_of(name: str) -> frozenset[str]:
    """Return the words of a name in any style, in small letters."""
    return frozenset(word.lower() for word in re.findall("[A-Z]?[a-z]{3,}", name)) - {"test", "tests"}


def observe(items: list[pytest.Item], loop: Loop, work: Path) -> None:
    """Run tests and end with what each has reached."""
    failing: list[str] = []
    tests: dict[str, tuple[float, list[int]]] = {}
    keys: dict[str, int] = {}
    loop.end = failing.append

    def before(item: pytest.Item) -> None:
        REACHED.clear()
        began[0] = time.monotonic()

    def after(item: pytest.Item) -> None:
        reached = [keys.setdefault(key, len(keys)) for key in [*REACHED]]
        tests[item.nodeid] = round(time.monotonic() - began[0], 4), reached

    began = [0.0]
    run_all(items, before, after)
    end_with(work, json.dumps({"failing": failing, "tests": tests, "keys": [*keys]}))


@cache
def others() -> tuple[Path, ...]:
    """Return the files that any test may use."""
    helpers = [path for path in (ROOT / "tests").rglob("*.py") if not path.name.startswith("test_")]
    return *sorted((ROOT / "webchat_fsm").rglob("*.py")), *sorted({*helpers} - {Path(__file__)})


def digest(*paths: Path) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


class Loop:
    """Takes the place of pytest's own loop over the tests, and ends the process at the first failure."""

    def __init__(self, tests: Callable[[list[pytest.Item]], None], end: Callable[[str], None]) -> None:
        self.tests, self.end = tests, end

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Hand over the name of a test that has failed."""
        if report.failed:
            self.end(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests that were collected."""
        if not session.testsfailed:  # a file that cannot be imported is a failure, but has no report
            try:
                self.tests(session.items)
            except Exception:  # pytest would print it and go on
                self.end(BROKEN + traceback.format_exc())
        return True


def run_all(
    items: list[pytest.Item],
    before: Callable[[pytest.Item], None] = lambda item: None,
    after: Callable[[pytest.Item], None] = lambda item: None,
    limit: float = math.inf,
) -> None:
    """Run tests in this order, none that would begin after `limit` seconds of processor time."""
    until = time.process_time() + limit
    for item, later in zip_longest(items, items[1:]):
        if time.process_time() > until:
            return
        before(item)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=later)
        after(item)


def collect(tests: list[str], loop: Loop) -> int:
    """Collect tests and hand them to the loop; returns pytest's exit code."""
    for module in (TABLE, *core()):  # before pytest, whose own hook would compile the file as it is
        importlib.import_module(module)

    options = ["-q", "-n", "0", "--timeout", str(TEST_LIMIT), "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*options, *tests], plugins=[loop]))


def end_with(work: Path, result: str) -> NoReturn:
    """End this process at once, with its result in a file; what it has opened or started, its parent ends."""
    (work / str(os.getpid())).write_text(result, encoding="utf-8")
    os._exit(0)


def forked(work: Path, do: Callable[[], None]) -> int:
    """Do something in a forked process of a group of its own; returns its id."""
    if child := os.fork():
        return child
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        with open(work / f"{os.getpid()}.out", "wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(dir=work)  # where pytest makes the folders of tests
        do()
    except BaseException:
        end_with(work, BROKEN + traceback.format_exc())
    end_with(work, "")


BROKEN = "BROKEN "
"""Begins the result of a process in which something else than a test has failed."""


def result_of(child: int, status: int, work: Path) -> str:
    """Return the result of a process that has ended, and end what it has started; raises if it went wrong."""
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    file = work / str(child)
    result = file.read_text("utf-8") if file.exists() else f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    if BROKEN in result:
        raise RuntimeError(result + file.with_suffix(".out").read_text("utf-8", "replace")[-4000:])
    return result


def side_by_side(jobs: Sequence[Callable[[], None]], work: Path) -> Iterator[tuple[int, str, float]]:
    """Do each job in a forked process, as many at a time as there are cores; yield its number, result and seconds."""
    waiting, running = [*enumerate(jobs)][::-1], dict[int, tuple[int, float]]()
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                number, job = waiting.pop()
                running[forked(work, job)] = number, time.monotonic()
            child, status = os.waitpid(-1, os.WNOHANG)
            now = time.monotonic()
            if child:
                number, began = running.pop(child)
                yield number, result_of(child, status, work), now - began
            else:
                time.sleep(0.005)
                for late in [child for child, (_, began) in running.items() if now - began > LIMIT]:
                    os.kill(late, signal.SIGKILL)
    finally:
        for child in running:
            os.killpg(child, signal.SIGKILL)


def cold(mutants: list[Mutant], work: Path, known: Known, limit: float) -> Iterator[Result]:
    """Run mutants each in a process that imports the package anew."""

    def run(mutant: Mutant) -> None:
        sys.meta_path.insert(0, Changing(mutant.module, mutant.change))
        files = {test.partition("::")[0] for test in known.reached if known.meets(test, mutant)}
        loop = Loop(lambda items: run_all(known.order(mutant, items), limit=limit), partial(end_with, work))
        try:
            code = collect(sorted(files), loop)
        except Exception as error:  # the package, with this change, cannot be imported
            end_with(work, f"import: {type(error).__name__}")
        if code:
            end_with(work, f"import: pytest ended with {code}")

    for number, test, seconds in side_by_side([partial(run, mutant) for mutant in mutants], work):
        known.note(mutants[number], test)
        yield mutants[number], test, seconds


def warm(mutants: list[Mutant], work: Path, known: Known, failing: list[str], limit: float) -> Iterator[Result]:
    """Run mutants each in a fork of one process that has collected the tests."""
    reading, writing = map(os.fdopen, os.pipe(), "rw")
    child = forked(work, partial(serve, mutants, work, known, writing, limit))
    writing.close()
    try:
        failing += json.loads(reading.readline() or "[]")
        known.load()
        for text in reading:
            number, test, seconds = json.loads(text)
            known.note(mutants[number], test)
            yield mutants[number], test, seconds
    except BaseException:
        os.kill(child, signal.SIGTERM)
        raise
    finally:
        reading.close()
        _, status = os.waitpid(child, 0)
    if result := result_of(child, status, work):
        raise RuntimeError(f"the tests cannot be collected: {result}")


def serve(mutants: list[Mutant], work: Path, known: Known, writing: TextIO, limit: float) -> None:
    """Collect the tests and run the mutants; write the tests that fail without one, and each result, as a line."""
    signal.signal(signal.SIGTERM, interrupted)  # or it would not end those that it has forked
    note_what_is_reached()

    def run(mutant: Mutant, items: list[pytest.Item]) -> None:
        replace_table(mutant.row) if mutant.row else replace_code(mutant)
        run_all(known.order(mutant, items), limit=limit)

    def run_each(items: list[pytest.Item]) -> None:
        gc.unfreeze()  # what the tests' own set-up has frozen would not be found
        find_functions()
        gc.freeze()
        print(json.dumps(known.learn(items, work, loop)), file=writing, flush=True)
        for number, test, seconds in side_by_side([partial(run, mutant, items) for mutant in mutants], work):
            known.note(mutants[number], test)
            print(json.dumps([number, test, seconds]), file=writing, flush=True)

    loop = Loop(run_each, partial(end_with, work))
    if code := collect(TESTS, loop):
        end_with(work, f"pytest ended with {code}")


def interrupted(number: int, frame: object) -> NoReturn:
    raise SystemExit(f"ended by signal {number}")


def replace_table(code: str) -> None:
    """Make the change of the table in every module that has it, and in what was derived from it."""
    table, machine = sys.modules[TABLE], sys.modules[MACHINE]
    old = table.TRANSITIONS
    exec(code, vars(table))
    for module in [*sys.modules.values()]:
        if getattr(module, "TRANSITIONS", None) is old:
            module.TRANSITIONS = table.TRANSITIONS
    built = machine.build(table.TRANSITIONS)
    machine._machine = lambda: built
    table.reachable.cache_clear()


FOUND: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
"""The functions of the package by file, qualified name and line."""


def find_functions() -> None:
    """Note all functions of the package that exist."""
    for found in gc.get_objects():
        if isinstance(found, FunctionType) and (found.__module__ or "").startswith("webchat_fsm."):
            code = found.__code__
            FOUND[code.co_filename, code.co_qualname, code.co_firstlineno].append(found)


def replace_code(mutant: Mutant) -> None:
    """Give a function the code of its mutated source."""
    edge = [compiled(mutant.module, mutant.change)]
    while (code := edge.pop()) and (code.co_qualname, code.co_firstlineno) != mutant.function:
        edge += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    functions = FOUND[code.co_filename, code.co_qualname, code.co_firstlineno]
    if not functions:
        raise RuntimeError(f"{mutant.words}: there is no function {mutant.function}")
    for function in functions:
        function.__code__ = code


def spread(mutants: list[Mutant], most: int) -> list[Mutant]:
    """Take at most so many, at even distances."""
    step = max(1.0, len(mutants) / most)
    return [mutants[int(number * step)] for number in range(min(most, len(mutants)))]


def chosen(arguments: argparse.Namespace) -> list[Mutant]:
    """List the mutants to run."""
    kinds = {"table": of_the_table, "core": of_the_core}
    found = {kind: [*kinds[kind]()] for kind in arguments.kind or kinds}
    if len(found) == len(kinds):
        words = {one.words for all_ in found.values() for one in all_}
        for stale in EQUIVALENT.keys() - words:
            print(f"listed as equivalent, but no mutant: {stale}")
    wanted = {
        kind: [one for one in all_ if arguments.only in one.words and one.words not in EQUIVALENT]
        for kind, all_ in found.items()
    }
    return [one for kind, all_ in wanted.items() for one in (all_ if arguments.all else spread(all_, SAMPLE[kind]))]


def results(mutants: list[Mutant], work: Path, known: Known, failing: list[str], limit: float) -> Iterator[Result]:
    """Run all mutants; one of the table that seems to survive is imported anew, as much is derived from the table."""
    again = [mutant for mutant in mutants if not mutant.warm]
    for mutant, test, seconds in warm([mutant for mutant in mutants if mutant.warm], work, known, failing, limit):
        if mutant.row and not test:
            again.append(mutant)
        else:
            yield mutant, test, seconds
    yield from cold(again, work, known, limit)


def main() -> int:
    """Run the mutants, print a table and the survivors; returns 1 where fewer than `LEAST` of a kind are killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every mutant, not a sample")
    parser.add_argument("--kind", action="append", choices=[*LEAST], help="one kind alone")
    parser.add_argument("--only", default="", help="those whose description holds a text")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupted)
    began, known, limit = time.monotonic(), Known(), math.inf if arguments.all else SAMPLE_SECONDS
    for name in LIBRARIES:
        importlib.import_module(name)
    mutants = chosen(arguments)
    spent, done, survivors, failing = Counter[str](), Counter[str](), list[Mutant](), list[str]()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            for number, (mutant, test, seconds) in enumerate(results(mutants, Path(folder), known, failing, limit), 1):
                spent[mutant.kind] += seconds
                done[mutant.kind] += 1
                survivors += [] if test else [mutant]
                fate = f"killed by {test}" if test else "SURVIVED"
                print(f"{number:4}/{len(mutants)} {seconds:5.1f} s  {mutant.kind}: {mutant.words}: {fate}", flush=True)
    finally:  # where the run is interrupted, the next one still knows what this one has found
        write(NOTES / "killed.json", known.killed_by)
    share = {}
    print(f"\n{'':8}{'mutants':>8}{'killed':>8}{'share':>8}{'seconds':>9}")
    for kind, total in done.items():
        killed = total - sum(mutant.kind == kind for mutant in survivors)
        share[kind] = killed / total
        print(f"{kind:8}{total:8}{killed:8}{share[kind]:8.1%}{spent[kind]:9.0f}")
    for mutant in survivors:
        print(f"survived: {mutant.kind}: {mutant.words}")
    for test in failing:
        print(f"fails without a mutant, and was left out: {test}")
    used = sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"{time.monotonic() - began:.0f} s, {used:.0f} s of processor time")
    return int(bool(failing) or any(share[kind] < LEAST[kind] for kind in share))


if __name__ == "__main__":
    sys.exit(main())
