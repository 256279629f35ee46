"""Check that the interpreter of the explorer page does with lifecycle.json what the core did: each step of a trace.

The comparison can fail: a table without one of its rows, events or flags is reported with step and both values.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.exports.replaying import FLAGS
from tests.exports.test_replay import ANSWERED, CHANGES, OVER_LIMIT, SHOWN, STARTED
from webchat_fsm.diagram._lifecycle_json import lifecycle_json
from webchat_fsm.lifecycle._table import Effect

SCRIPT = Path(__file__).with_name("replay_page.mjs")
MODULES = Path(__file__).parents[2] / "webchat_fsm" / "diagram" / "explorer"
NAMES = {"flags": FLAGS, "effects": {effect.value: effect.name.lower() for effect in Effect}}

pytestmark = [pytest.mark.needs("node"), pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def trace_file(tmp_path_factory, tracer) -> Path:
    return tracer.write(tmp_path_factory.mktemp("page") / "trace.json")


def by_page(trace: Path, table: Path) -> dict[str, Any]:
    """Return the steps and the differences that the page's interpreter has with the table of a file."""
    command = ["node", str(SCRIPT), str(MODULES), str(trace), str(table), json.dumps(NAMES)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def altered_table(change: str) -> str:
    table = json.loads(lifecycle_json())
    rows = {row["number"]: row for row in table["transitions"]}
    if change == "drop a row":
        table["transitions"].remove(rows[OVER_LIMIT])
    elif change == "swap two events":
        rows[STARTED]["publishes"].reverse()
    else:
        rows[ANSWERED]["clears"].remove("pending")
    return json.dumps(table)


def test_page_reports_what_the_core_did(trace_file, tracer, tmp_path):
    (tmp_path / "lifecycle.json").write_text(lifecycle_json(), encoding="utf-8")
    assert by_page(trace_file, tmp_path / "lifecycle.json") == {"steps": tracer.steps, "differences": []}


@pytest.mark.parametrize("change", CHANGES)
def test_page_reports_an_altered_table(trace_file, change, tmp_path):
    (tmp_path / "lifecycle.json").write_text(altered_table(change), encoding="utf-8")
    found = by_page(trace_file, tmp_path / "lifecycle.json")["differences"]
    assert found
    assert SHOWN.search(found[0]), found[0]
