"""Check the explorer page as a text, and the command that writes it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from webchat_fsm._cli import main as command_line
from webchat_fsm.diagram._explorer import FURTHER, MODULES, PUSHED, page
from webchat_fsm.diagram._files import FILES, SEQUENCES
from webchat_fsm.diagram._lifecycle_json import lifecycle_json
from webchat_fsm.lifecycle import _legality
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing._sequence import FILES as STORY_FILES

LARGEST = 500_000
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028"


@pytest.fixture(scope="module")
def text() -> str:
    return page()


def data_of(text: str, name: str) -> object:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def hash_of(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def recorded(tmp_path: Path, webchat_server, webchat_timeline, said: str = "Hello") -> Path:
    webchat_server.records = True
    chat = webchat_server.client()
    chat.open()
    chat.start_chat(nickname="Jonny")
    webchat_server.agent("Ann").join().say(said)
    webchat_timeline.advance(3.0)
    webchat_server.recording(chat).save(tmp_path / "chat.jsonl")
    return tmp_path / "chat.jsonl"


def test_page_is_smaller_than_half_a_megabyte(text: str):
    assert len(text.encode()) < LARGEST


def test_page_has_a_drawing_for_each_transport(text: str):
    assert re.findall(r'<svg class="drawing" data-transport="([^"]+)"', text) == [*Transport]


def test_page_holds_lifecycle_json(text: str):
    assert data_of(text, "lifecycle") == json.loads(lifecycle_json())


def test_policy_allows_its_one_script_and_style_alone(text: str):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    scripts = re.findall(r'<script type="module">(.*?)</script>', text, re.DOTALL)
    assert policy is not None
    assert style is not None
    assert len(scripts) == 1
    assert policy[1] == (
        f"default-src 'none'; style-src 'sha256-{hash_of(style[1])}'; script-src 'sha256-{hash_of(scripts[0])}';"
        " base-uri 'none'; form-action 'none'"
    )


def test_page_names_nothing_to_load(text: str):
    assert not re.search(r"""(?:src|href|action)=["'](?!#)|url\(|@import|<link|<iframe""", text.split("<script")[0])


def test_each_module_of_the_folder_is_joined():
    folder = files("webchat_fsm.diagram").joinpath("explorer")
    assert {one.name for one in folder.iterdir() if one.name.endswith(".mjs")} == {f"{name}.mjs" for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_module_has_a_fair_size(name: str):
    module = files("webchat_fsm.diagram").joinpath("explorer", f"{name}.mjs").read_text(encoding="utf-8")
    assert module.startswith("/**")
    assert 60 <= module.count("\n") <= 400
    assert max(map(len, module.splitlines())) <= 160


def test_each_text_of_a_rejection_is_on_the_page():
    texts = [text for name, text in vars(_legality).items() if re.fullmatch("[A-Z][A-Z_]*", name) and type(text) is str]
    shown = json.dumps([json.loads(lifecycle_json()), FURTHER, PUSHED])
    assert len(texts) > 20
    # only what stands before a value that is filled in is literal
    assert [text for text in texts if json.dumps(text.partition("{")[0])[1:-1] not in shown] == []
    assert "{" not in "".join(text for by in (*FURTHER.values(), *PUSHED.values()) for text in by.values())


def test_recording_with_markup_stays_data(tmp_path, webchat_server, webchat_timeline):
    path = recorded(tmp_path, webchat_server, webchat_timeline, HOSTILE)
    held = page(path.read_bytes())
    assert data_of(held, "recording") == path.read_text(encoding="utf-8")
    assert "<img" not in held
    assert held.count("</script>") == page().count("</script>")


def test_same_table_gives_the_same_page(text: str):
    assert page() == text


def test_command_writes_the_page_alone(tmp_path, text, capsys):
    target = tmp_path / "new" / "page.html"
    assert command_line(["docs", "--html", str(target)]) == 0
    assert target.read_bytes() == text.encode()
    assert capsys.readouterr().out == f"written: {target}\n"


def test_command_without_options_writes_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command_line(["docs"]) == 0
    assert sorted(path.name for path in Path("diagrams").iterdir()) == sorted([*FILES, SEQUENCES])
    assert sorted(path.name for path in Path("diagrams", SEQUENCES).iterdir()) == sorted(STORY_FILES)
    assert Path("explorer.html").is_file()


def test_command_refuses_what_is_no_recording(tmp_path, capsys):
    given = tmp_path / "chat.jsonl"
    given.write_text('{"a": 1}\n', encoding="utf-8")
    assert command_line(["docs", "--html", str(tmp_path / "page.html"), "--recording", str(given)]) == 1
    assert "this is no recording of a chat session" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_command_refuses_a_missing_recording(tmp_path, capsys):
    given = tmp_path / "none.jsonl"
    assert command_line(["docs", "--html", str(tmp_path / "page.html"), "--recording", str(given)]) == 1
    assert capsys.readouterr().err == f"webchat-fsm: {given}: No such file or directory\n"
