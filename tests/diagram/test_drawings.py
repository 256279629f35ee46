"""Check the Mermaid and Graphviz texts of the lifecycle."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from webchat_fsm.diagram import (
    DARK,
    DEFAULT,
    LIGHT,
    Part,
    _machines,
    annotate,
    dot,
    lifecycle,
    mermaid,
    walked,
)
from webchat_fsm.diagram._formats import mermaid_id, mermaid_label, mermaid_path
from webchat_fsm.diagram._layout import run_graphviz
from webchat_fsm.diagram._machines import Box, Lifecycle, TakenRow, path_text
from webchat_fsm.lifecycle._table import State, Trigger
from webchat_fsm.lifecycle._transports import Transport

VIEWS = [None, *Transport]
WALK: list[TakenRow] = [
    (State.IDLE, Trigger.OPEN, State.IDLE),
    (State.IDLE, Trigger.START, State.STARTING),
    (State.STARTING, Trigger.START_CONFIRMED, State.POLLING),
    (State.POLLING, Trigger.POLL_ANSWERED, State.POLLING),
    (State.POLLING, Trigger.POLL_ANSWERED, State.POLLING),
    (State.POLLING, Trigger.CLOSE, State.DORMANT),
]

ID = r"[A-Za-z_]+"
LABEL = r"[^:;#\n]+"
MERMAID_LINE = re.compile(
    rf"""%%\ [^\n]* | stateDiagram-v2 | \s*direction\ TB | \s*\}}
    | \s*state\ "[^":;\n]+"\ as\ {ID}(\ \{{)?
    | \s*{ID}\ :\ {LABEL}
    | \s*(\[\*\]|{ID})\ -->\ {ID}(\ :\ {LABEL})?
    | \s*classDef\ {ID}\ [\w:#,-]+
    | \s*class\ {ID}(,{ID})*\ {ID}""",
    re.VERBOSE,
)


@pytest.fixture(params=VIEWS, ids=str)
def seen(request: pytest.FixtureRequest) -> Lifecycle:
    return lifecycle(request.param)


def mermaid_ids(text: str) -> set[str]:
    return set(re.findall(rf'state "[^"]+" as ({ID})', text))


def test_mermaid_text_follows_its_grammar(seen: Lifecycle):
    drawn = mermaid(seen)
    assert [line for line in drawn.splitlines() if not MERMAID_LINE.fullmatch(line)] == []
    assert drawn.count("{\n") == drawn.count("}\n") == 1


@pytest.mark.parametrize("line", ["  a-b --> c", "  a --> b : one: two", "  a : text; more", "  a --> b : no #1"])
def test_grammar_check_finds_a_broken_line(line: str):
    assert not MERMAID_LINE.fullmatch(line)


def test_mermaid_declares_the_states_of_the_transport(seen: Lifecycle):
    wanted = {mermaid_id(node.state) for node in seen.drawn} | {mermaid_id(Box.SESSION)}
    assert mermaid_ids(mermaid(seen)) == wanted


def test_mermaid_arrows_join_declared_states(seen: Lifecycle):
    drawn = mermaid(seen)
    ends = {end for ends in re.findall(rf"({ID}) --> ({ID})", drawn) for end in ends}
    assert ends <= mermaid_ids(drawn)


def test_state_with_hyphen_keeps_its_name_under_another_id():
    assert 'state "async-dormant" as async_dormant' in mermaid(lifecycle(Transport.V3_ASYNC))


def test_mermaid_label_respells_reserved_characters():
    assert mermaid_label("over CometD: pushed; see #3") == "over CometD - pushed, see no.3"


def test_path_is_highlighted_in_the_whole_lifecycle():
    whole = lifecycle(Transport.V2)
    overlay = mermaid_path(whole, [State.IDLE, State.STARTING, State.IDLE])
    assert overlay.startswith(mermaid(whole))
    assert overlay.splitlines()[-1] == "  class idle,starting walked"
    assert all(MERMAID_LINE.fullmatch(line) for line in overlay.splitlines())


def test_empty_path_highlights_nothing():
    assert mermaid_path(lifecycle(), []) == mermaid(lifecycle())


def test_path_is_printed_step_by_step():
    assert path_text(WALK) == (
        "    idle --open--> idle\n"
        "    idle --startChat--> starting\n"
        "starting --start confirmed--> polling\n"
        " polling --poll answered--> polling  (x2)\n"
        " polling --close--> async-dormant\n"
    )


def test_empty_path_prints_nothing():
    assert path_text([]) == ""


def test_dot_has_one_edge_per_arc_in_its_true_direction(seen: Lifecycle):
    drawn = re.findall(r'^  "([^"]+)" -> "([^"]+)" \[', dot(seen), re.MULTILINE)
    assert drawn == [(arc.source, arc.dest) for arc in seen.arcs(())]
    assert set(drawn) == {(edge.source, edge.dest) for edge in seen.edges if not edge.stays}
    assert " dir=" not in dot(seen)


def test_graphviz_parses_the_dot_text(seen: Lifecycle):
    parsed = json.loads(run_graphviz(dot(seen), "json0"))
    names = {one["_gvid"]: one["name"] for one in parsed["objects"]}
    ends = [(names[one["tail"]], names[one["head"]]) for one in parsed["edges"]]
    assert sorted(ends) == sorted((arc.source.value, arc.dest.value) for arc in seen.arcs(()))
    assert {node.state.value for node in seen.drawn} <= set(names.values())


def test_dot_label_keeps_quotes_and_backslashes():
    noted = annotate(lifecycle(Transport.V2), {"idle": 'say "C:\\"'})
    parsed = json.loads(run_graphviz(dot(noted), "json0"))
    (idle,) = [one["label"] for one in parsed["objects"] if one["name"] == "idle"]
    assert idle.replace('\\"', '"').replace("\\\\", "\\").endswith('say "C:\\"')


def test_dot_font_with_quotes_stays_one_attribute():
    text = dot(lifecycle(Transport.V2), replace(DEFAULT, font="""'A "broad" font', serif"""))
    assert 'fontname="A \\"broad\\" font",' in text
    assert json.loads(run_graphviz(text, "json0"))["name"] == "lifecycle"


def test_dot_dark_theme_has_the_colours_of_the_dark_palette():
    dark = dot(lifecycle(Transport.V2), DEFAULT.with_theme("dark"))
    assert DARK.page in dark
    assert DEFAULT.light.page not in dark


def test_mermaid_fixed_theme_is_named_in_its_directive():
    assert "%%{init: {'theme': 'dark'}}%%\nstateDiagram" in mermaid(lifecycle(), DEFAULT.with_theme("dark"))
    assert "init" not in mermaid(lifecycle())


def test_mermaid_of_a_part_without_idle_has_no_entry():
    drawn = mermaid(lifecycle(Transport.V2, Part.OUTAGE))
    assert "[*]" not in drawn
    assert "{" not in drawn
    assert all(MERMAID_LINE.fullmatch(line) for line in drawn.splitlines())


def test_mermaid_shows_notes_and_counts():
    seen = annotate(lifecycle(Transport.V2), {"idle": "the button is shown", "startChat": "by the button"})
    drawn = mermaid(walked(seen, [("idle", "startChat", "starting")] * 2))
    assert "idle : no session<br/>the button is shown\n" in drawn
    assert "idle --> starting : startChat \u00d72 (by the button)\n" in drawn


@pytest.mark.parametrize("note", ["two\nlines", "%%{init: {'theme': 'dark'}}%%", "%%%{config}%%%"])
def test_mermaid_note_stays_in_its_label(note: str):
    drawn = mermaid(annotate(lifecycle(Transport.V2), {"idle": note, "startChat": note}))
    assert [line for line in drawn.splitlines() if not MERMAID_LINE.fullmatch(line)] == []
    assert "%%" not in drawn.partition("\n")[2], "a directive is read in any place"


@pytest.mark.parametrize(("transport", "strange"), [(Transport.V2, "CometD"), (Transport.COMETD, "poll")])
def test_meanings_name_no_other_transport(transport: Transport, strange: str):
    assert all(strange not in node.meaning.replace("pollExceptionLimit", "") for node in lifecycle(transport).drawn)
    assert all("over CometD: " in lifecycle().node(state).meaning for state in (State.ACTIVE, State.OFFLINE))


def test_failure_is_dashed_and_red():
    lost = [line for line in dot(lifecycle(Transport.V2)).splitlines() if "poll failed" in line]
    assert len(lost) == 1
    assert LIGHT.failure in lost[0]
    assert "style=dashed" in lost[0]


def test_drawing_twice_gives_the_same_bytes(seen: Lifecycle):
    first = (mermaid(seen), dot(seen))
    _machines._lifecycle.cache_clear()
    again = lifecycle(None if len(seen.views) > 1 else Transport(*seen.views))
    assert again is not seen
    assert (mermaid(again), dot(again)) == first
