"""Check that the library Mermaid itself renders its texts in Chromium, with each state, arrow and label."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chromium import PACKAGES, ROOT, demand, launched, listen
from webchat_fsm.diagram._formats import mermaid_path
from webchat_fsm.diagram._machines import lifecycle
from webchat_fsm.diagram._sequence import mermaid_sequence
from webchat_fsm.lifecycle import State
from webchat_fsm.testing._sequence import STORIES, sequence

pytestmark = [pytest.mark.needs("chromium", "playwright"), pytest.mark.timeout(300)]

MERMAID = PACKAGES / "mermaid/dist/mermaid.min.js"
DRAWINGS = sorted((ROOT / "diagrams").glob("*.mmd"))
RENDER = "async (text) => { document.body.innerHTML = (await mermaid.render('drawn', text)).svg; }"
TEXTS = "(selector) => [...document.querySelectorAll(selector)].map((one) => one.textContent)"

Shown = Callable[[str], Callable[[str], list[str]]]


@pytest.fixture(scope="module")
def render() -> Iterator[Shown]:
    """Return a function that renders a text, and returns one that reads the texts of elements by their selector."""
    demand(MERMAID)
    with launched() as chromium:
        page, complaints, requested = chromium.new_page(), [], []
        listen(page, complaints, requested)
        page.add_script_tag(content=MERMAID.read_text(encoding="utf-8"))

        def rendered(text: str) -> Callable[[str], list[str]]:
            page.evaluate(RENDER, text)  # raises where the grammar of Mermaid refuses the text
            return lambda selector: page.evaluate(TEXTS, selector)

        yield rendered
        assert (complaints, requested) == ([], [])


def labels(text: str) -> list[str]:
    """Return what stands on the arrows, without breaks of lines."""
    arrows = [line for line in text.splitlines() if "-->" in line]
    return [html.unescape(line.partition(" : ")[2]).replace("<br/>", "") for line in arrows]


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.stem)
def test_mermaid_renders_each_state_arrow_and_label(render: Shown, path: Path):
    text = path.read_text(encoding="utf-8")
    names = {line.split('"')[1] for line in text.splitlines() if line.strip().startswith('state "')}
    shown = render(text)
    drawn = {name.strip() for name in shown(".node .nodeLabel, .cluster-label .nodeLabel, .statediagram-state p")}
    assert len(names) > 5
    assert {name for name in names if not any(one.startswith(name) for one in drawn)} == set()
    assert len(shown("path.transition")) == len(labels(text))
    assert sorted(filter(None, map(str.strip, shown(".edgeLabel .edgeLabel")))) == sorted(filter(None, labels(text)))


def test_mermaid_renders_the_path_of_a_walk(render: Shown):
    text = mermaid_path(lifecycle(), [State.IDLE, State.STARTING, State.POLLING])
    assert len(render(text)("path.transition")) == len(labels(text))


@pytest.mark.parametrize("name", STORIES)
def test_mermaid_renders_each_message_of_a_sequence(render: Shown, name: str):
    text = mermaid_sequence(sequence(STORIES[name].run()))
    arrows = re.findall(r"^  \w+--?(?:>>|x)\w+: ", text, re.MULTILINE)
    assert len(arrows) > 5
    assert len(render(text)("text.messageText")) == len(arrows)
