"""Test the sequences of recordings: what is folded, the times, and the pictures of the documented ones."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.diagram.pictures import SVG, Picture
from webchat_fsm._model import Json
from webchat_fsm.diagram import check
from webchat_fsm.diagram._sequence import LONGEST, Item, Kind, Party, Sequence, mermaid_sequence, svg_sequence
from webchat_fsm.testing import Recording
from webchat_fsm.testing._sequence import FILES, STORIES, picture, sequence

FOLDER = Path(__file__).parents[2] / "diagrams" / "sequences"


def texts(drawn: Sequence, kind: Kind) -> list[str]:
    return [item.text for item in drawn.items if item.kind is kind]


@pytest.mark.parametrize("name", FILES)
def test_committed_sequence_equals_its_rendering(name: str):
    assert (FOLDER / name).read_bytes() == FILES[name].render().encode()


def test_folder_of_sequences_has_no_other_file():
    assert check(FOLDER, FILES) == []


@pytest.mark.parametrize("name", STORIES)
def test_story_ends_in_one_page_of_items(name: str):
    drawn = Picture(picture(name))
    assert (drawn.width, drawn.height < 1500) == (830, True)
    assert drawn.size >= 13


@pytest.mark.parametrize("name", STORIES)
def test_texts_of_a_sequence_are_free_of_each_other(name: str):
    texts = Picture(picture(name)).texts
    middle = [text for text in texts if text.kind not in ("title", "time")]
    # Texts are centred by the style sheet, which the reader of pictures does not know.
    placed = [text.rect.moved(-text.rect.width / 2, 0) for text in middle]
    assert len(placed) > 10
    assert all(rect.x > 0 and rect.right < 830 for rect in placed)
    assert not [pair for pair in combinations(placed, 2) if pair[0].overlaps(pair[1])]


def test_polls_without_content_are_one_note():
    drawn = sequence(STORIES["start-and-end"].run())
    folded = texts(drawn, Kind.REPEATED)
    assert folded[-1] == "12 polls without content, 10.9 s .. 29.4 s"
    assert texts(drawn, Kind.REQUEST).count("refresh") == 3, "those that brought messages"


def test_failed_polls_without_events_are_one_note():
    drawn = sequence(STORIES["outage"].run())
    assert "4 polls failed, 8.2 s .. 16.0 s" in texts(drawn, Kind.REPEATED)
    assert len([text for text in texts(drawn, Kind.FAILURE) if "lost" in text]) == 2, "those with events or a new state"


def recorded(*lines: Json) -> Recording:
    """Return a recording with some lines, completed by what each kind needs."""
    step = {"timer": 0.0, "draw": 0.5, "state": "polling", "transitions": [], "events": []}
    request = {"operation": "refresh", "method": "POST", "url": "http://chat.test", "headers": {}}
    whole = [{**(request if "request" in line else step), **line} for line in lines]
    return Recording([STORIES["outage"].run().head, *whole])


POLL = {"time": 0.0, "tick": "poll", "preview": "", "calls": 7}
TYPING = {"time": 1.0, "command": "sendTyping", "data": {}, "by": "user"}


def test_poll_with_an_item_in_between_is_counted_once():
    ended = {"time": 2.0, "answered": 7, "status": 200, "headers": {}}
    drawn = sequence(recorded(POLL, {"time": 0.0, "request": 7}, TYPING, ended))
    assert [item.text for item in drawn.items] == ["sendTyping", "1 poll without content"]


def test_poll_that_is_sent_after_a_command_is_still_a_poll():
    sent = [{"time": 1.0, "request": 8, "operation": "typing"}, {"time": 1.0, "request": 7}]
    ended = {"time": 2.0, "answered": 7, "status": 200, "headers": {}}
    drawn = sequence(recorded(POLL, {**TYPING, "calls": 8}, *sent, ended))
    assert texts(drawn, Kind.REQUEST) == ["typing"]
    assert texts(drawn, Kind.REPEATED) == ["1 poll without content, 1.0 s .. 2.0 s"]


def test_every_event_and_change_of_state_is_shown():
    recording = STORIES["restoring"].run()
    drawn = sequence(recording)
    shown = " ".join(texts(drawn, Kind.EVENT))
    assert all(event.name in shown for event in recording.events)
    changes = [f"{step.source} to {step.dest}" for step in recording.transitions if step.source is not step.dest]
    assert [text.partition(" (")[0] for text in texts(drawn, Kind.STATE) if " to " in text] == changes


def test_times_are_those_of_the_recording_from_its_begin():
    drawn = sequence(STORIES["start-and-end"].run())
    times = {item.text: item.time for item in drawn.items if item.kind is Kind.COMMAND}
    assert times == {"startChat": 0.0, "sendMessage": 10.0, "endChat": 30.0}
    assert [item.time for item in drawn.items] == sorted(item.time for item in drawn.items)


def test_recording_without_steps_is_an_empty_sequence():
    recording = Recording([STORIES["outage"].run().head])
    assert sequence(recording).items == ()
    assert svg_sequence(sequence(recording)).startswith("<svg ")


def one(text: str) -> Sequence:
    return Sequence("One", ("a", "b", "c"), (Item(1.25, Party.USER, Party.SERVICE, text, Kind.COMMAND),))


def test_markup_in_a_text_stays_text():
    root = ElementTree.fromstring(svg_sequence(one("<b> & </text>")))
    assert "<b> & </text>" in [text.text for text in root.iter(f"{SVG}text")]
    assert "(b) & (/text)" in mermaid_sequence(one("<b> & </text>"))


@pytest.mark.parametrize("text", ["%%{init: {'theme': 'dark'}}%%", "a ---> b", "%%%", "two\nlines\u2028three"])
def test_text_of_a_message_cannot_control_mermaid(text: str):
    before, line = mermaid_sequence(one(text)).splitlines()[-2:]
    assert before.startswith("  participant C")
    assert line.startswith("  U->>S: 1.2 s ")
    assert not re.search("%%|--", line)


def test_long_text_is_shortened_and_a_long_word_is_broken():
    words = [text.text or "" for text in ElementTree.fromstring(svg_sequence(one("w" * 500))).iter(f"{SVG}text")]
    pieces = [text for text in words if re.fullmatch(r"w+\u2026?", text)]
    assert len("".join(pieces)) == LONGEST
    assert len(pieces) > 5


def test_mermaid_shows_a_time_once():
    two = one("first")._replace(items=(*one("first").items, *one("second").items))
    assert mermaid_sequence(two).splitlines()[-2:] == ["  U->>S: 1.2 s first", "  U->>S: second"]
