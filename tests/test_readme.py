"""Test that every example of the README runs unchanged, and that the README begins with two commands."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from webchat_fsm import Config
from webchat_fsm import _config as config

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
EXAMPLE_TESTS = [code for code in PYTHON if "def test_" in code]
PROGRAMS = [code for code in PYTHON if "def test_" not in code]
PRINTED = {PROGRAMS[0]: {"Jonny: Hello", "Ann: You wrote: Hello - thank you, I am looking into it."}}
"""Lines that an example has to print."""


def _heading(code: str) -> str:
    return TEXT[: TEXT.index(code)].rpartition("\n## ")[2].partition("\n")[0]


@pytest.mark.parametrize("code", PROGRAMS, ids=_heading)
def test_example_runs_and_runs_again_after_saving_a_file(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(
        compile(code, "<README>", "exec"), {"__name__": "__main__"}
    )  # in this process: a new one for each example takes seconds
    assert PRINTED.get(code, set()) <= {*capfd.readouterr().out.splitlines()}
    if any(tmp_path.iterdir()):
        again = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
        assert again.returncode == 0, again.stderr


def test_example_tests_pass_with_the_installed_package(tmp_path: Path) -> None:
    for number, code in enumerate(EXAMPLE_TESTS):
        (tmp_path / f"test_example_{number}.py").write_text(code, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout


def test_readme_begins_with_two_one_line_commands() -> None:
    first, second = [code for language, code in BLOCKS if language == "sh"][:2]
    assert first.count("\n") == second.count("\n") == 1
    assert first.strip().endswith("webchat-fsm demo")
    assert "pytest" in second


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


def _field_docstrings() -> dict[tuple[str, str], str]:
    """Return the docstring below each field in the source of the configuration, by class and field."""
    found = {}
    for section in ast.parse(inspect.getsource(config)).body:
        body = section.body if isinstance(section, ast.ClassDef) else []
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                found[section.name, field.target.id] = below.value.value
    return found


def _rows(section: type[msgspec.Struct] = Config, above: str = "") -> Iterator[str]:
    """Yield a row for each key that is no section, in the order of the source; raise `KeyError` without a docstring."""
    for field in msgspec.structs.fields(section):
        key = above + field.encode_name.removeprefix("_")
        inner = next(config._structs(field.type), None)
        if inner is not None:
            yield from _rows(inner, f"{key}.")
        else:
            default = "" if field.default in (msgspec.NODEFAULT, "", None) else f"`{json.dumps(field.default)}`"
            yield f"| `{key}` | {default} | {MEANINGS[section.__name__, field.name]} |"


MEANINGS = _field_docstrings()


def test_configuration_table_equals_the_code() -> None:
    listed = TEXT.partition("<!-- configuration -->\n")[2].partition("<!-- /configuration -->")[0].splitlines()
    assert listed == ["| key | default | is |", "|---|---|---|", *_rows()], "\n".join(_rows())
