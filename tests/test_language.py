"""How the code reads: the field's words, docstrings that begin with a verb, short test names, modules of fair size."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS = ROOT / "webchat_fsm", ROOT / "tests"
FILES = sorted(path for path in [*PACKAGE.rglob("*.py"), *TESTS.rglob("*.py")] if path != Path(__file__))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for folder in (PACKAGE, TESTS) for path in folder.rglob("*.mjs"))

DIALECT = re.compile(
    r"(?<![A-Za-z])(told|news|whoever|whatever|nobody|farewell|forsak\w*|forsook|(?:hang|hung|take|took|taken)s? up|"
    r"taking up|hanging up|breath\w*|glance\w*|house)(?![A-Za-z])",
    re.IGNORECASE,
)
"""Words that have a plain one: reported, published, messages, anyone, any, no one, abandon, disconnect, resume."""

COMMENT = re.compile(r"/\*\*\s+(?:\* )?([A-Za-z]+)[^\n]*")
"""The first line of a comment that describes what a script declares."""

LONGEST_TEST_NAME = 60
LONGEST_MODULE, SHORTEST_MODULE = 400, 60

NO_VERB = {
    "the",
    "a",
    "an",
    "what",
    "whether",
    "how",
    "where",
    "whose",
    "who",
    "why",
    "as",
    "it",
    "every",
    "each",
    "all",
}


@cache
def source(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def functions(name: str) -> tuple[ast.FunctionDef, ...]:
    return tuple(node for node in ast.walk(ast.parse(source(name))) if isinstance(node, ast.FunctionDef))


def offending(name: str) -> Iterator[str]:
    for number, line in enumerate(source(name).splitlines(), 1):
        if found := DIALECT.search(line):
            yield f"{name}:{number}: {found[0]}"


def unverbal(name: str) -> Iterator[str]:
    for function in functions(name):
        first = (ast.get_docstring(function) or "Verb").split()[0].strip("`,:;").lower()
        if first in NO_VERB:
            yield f"{name}:{function.lineno}: {function.name} begins with {first!r}"


def unverbal_script(name: str) -> Iterator[str]:
    for found in COMMENT.finditer(source(name)):
        if found[1].lower() in NO_VERB:
            yield f"{name}: {found[0].strip()} begins with {found[1]!r}"


def lengthy(name: str) -> Iterator[str]:
    for function in functions(name):
        if function.name.startswith("test_") and len(function.name) >= LONGEST_TEST_NAME:
            yield f"{name}:{function.lineno}: {function.name}"


def missized(name: str) -> Iterator[str]:
    lines = source(name).count("\n")
    apart = Path(name).name in {"__init__.py", "__main__.py"}
    if not (apart or lines >= SHORTEST_MODULE) or lines > LONGEST_MODULE:
        yield f"{name}: {lines} lines"


def of(part: str) -> list[str]:
    return [name for name in NAMES if name.startswith(part)]


@pytest.mark.parametrize("name", [*NAMES, *SCRIPTS])
def test_no_private_dialect(name):
    assert [*offending(name)] == []


@pytest.mark.parametrize("name", of("webchat_fsm/"))
def test_docstrings_begin_with_a_verb(name):
    assert [*unverbal(name)] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_comments_of_scripts_begin_with_a_verb(name):
    assert [*unverbal_script(name)] == []


@pytest.mark.parametrize("name", of("tests/"))
def test_test_names_are_short(name):
    assert [*lengthy(name)] == []


@pytest.mark.parametrize("name", of("webchat_fsm/"))
def test_modules_have_a_fair_size(name):
    assert [*missized(name)] == []


if __name__ == "__main__":  # lists every offender of the named files, or of all
    import sys

    for rule, part in ((offending, ""), (unverbal, "webchat_fsm/"), (lengthy, "tests/"), (missized, "webchat_fsm/")):
        for name in sys.argv[1:] or of(part):
            if name.startswith(part) and (found := [*rule(name)]):
                print(*found, sep="\n")
