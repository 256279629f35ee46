"""Check the explorer page in Chromium: clicks, keys, recordings, accessibility, and that it loads nothing else.

Screenshots of each view are left in the folder `screenshots`, which git ignores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chromium import AXE, SCREENSHOTS, demand, launched, listen, violations
from webchat_fsm.diagram._explorer import page as explorer_page
from webchat_fsm.testing import TestServer, Timeline

pytestmark = [pytest.mark.needs("chromium", "playwright"), pytest.mark.timeout(300)]


HOSTILE = "</script><script>window.hostile = 1</script><img src=x onerror='window.hostile = 2'>"
VIEWS = {
    "overview": "#view=explore&transport=v2",
    "state": "#view=explore&state=offline&transport=v3",
    "command": "#view=explore&command=restore&transport=v2",
    "event": "#view=explore&event=disconnected&transport=v2",
    "trigger": "#view=explore&trigger=poll%20answered&transport=v2",
    "compare": "#view=compare&transport=v2&with=v3-async",
    "simulate": "#view=simulate&transport=v2&limit=1&walk=open.start.poll-ok.join-agent.poll-silent.poll-silent",
    "playback": "#view=playback&at=20",
}


def recorded() -> bytes:
    """Return a recording with a silent stretch, an outage, and messages that contain markup."""
    timeline = Timeline()
    server = TestServer(timeline)
    server.records = True
    chat = server.client(config={"pollExceptionLimit": 1})
    chat.open()
    chat.start_chat(nickname="Jonny", subject=HOSTILE)
    agent = server.agent("Ann").join()
    agent.say(f"Hello {HOSTILE}")
    timeline.advance(3.0)
    chat.send_message(HOSTILE)
    timeline.advance(65.0)
    server.load_faults([{"operation": "refresh", "attempt": [1, 2, 3], "drop": True}])
    timeline.advance(12.0)
    agent.say("Still there?")
    timeline.advance(4.0)
    chat.end_chat()
    chat.close()
    recording = server.recording(chat)
    return b"".join(json.dumps(line).encode() + b"\n" for line in (recording.head, *recording.lines))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write the page with a recording; return its URL."""
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    path.write_bytes(explorer_page(recorded()).encode())
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as chromium:
        yield chromium


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """Return a function that opens the page; at the end nothing was logged, run or requested beside the page itself."""
    contexts, complaints, requested = [], [], []

    def open_at(place: str = "", width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        listen(page, complaints, requested)
        page.goto(address + place)
        return page

    yield open_at
    hostile = [page.evaluate("window.hostile ?? null") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert complaints == []
    # A test that is skipped has opened no page.
    assert {url.partition("#")[0] for url in requested} <= {address}
    assert set(hostile) <= {None}


def heading(page: Any) -> str:
    return page.locator("#view h2").inner_text()


def choose_file(page: Any, name: str, content: bytes) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "text/plain", "buffer": content})


# -- exploring ---------------------------------------------------------------------------------------------------------


def test_click_on_a_state_answers_what_is_legal_there(opened):
    page = opened("#view=explore&transport=v3")
    page.locator('svg.drawing:visible g.state[data-state="offline"]').click()
    assert heading(page) == "offline on v3"
    assert page.url.endswith("#view=explore&transport=v3&state=offline")
    legal = page.locator("section", has_text="Legal commands").locator("a").all_inner_texts()
    assert {"endChat", "sendMessage", "stopPoll"} <= set(legal)
    rejected = page.locator("table tr", has_text="startChat").inner_text()
    assert "There is already an active chat session" in rejected


def test_enter_on_a_focused_state_chooses_it(opened):
    page = opened("#view=explore&transport=v2")
    page.locator('svg.drawing:visible g.state[data-state="idle"]').focus()
    page.keyboard.press("Enter")
    assert heading(page) == "idle on v2"


def test_trigger_at_an_arrow_is_a_link_for_keys_too(opened):
    page = opened("#view=explore&transport=v2")
    page.locator("svg.drawing:visible a.way", has_text="startChat").first.click()
    assert heading(page) == "startChat on v2"
    page.locator("svg.drawing:visible a.way", has_text="poll answered").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.includes('answered')")
    assert heading(page) == "poll answered on v2"


def test_arrows_aside_are_muted_and_their_texts_readable(opened):
    for scheme in ("light", "dark"):
        page = opened("#view=explore&state=idle&transport=v2", scheme=scheme)
        colours = page.evaluate(
            """[...document.querySelectorAll('svg.drawing:not([hidden]) .arrow:not(.followed) text')].map((one) =>
                [getComputedStyle(one).fill, getComputedStyle(one.closest('.arrow')).opacity])"""
        )
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colours
        assert {opacity for _, opacity in colours} == {"1"}
        assert min(contrast(fill, ground) for fill, _ in colours) >= 4.5


def contrast(one: str, other: str) -> float:
    """Return the ratio of contrast of two colours, as WCAG defines it."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    shares = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_skip_link_keeps_the_place_that_is_shown(opened):
    page = opened("#view=simulate&transport=v2&limit=1&walk=open.start")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    assert page.url.endswith("walk=open.start")
    assert page.locator("#state-now").inner_text() == "polling"


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("#view=constructor", 'There is no view "constructor": this is "explore".'),
        ("#view=explore&transport=v9", 'There is no transport "v9": this is v2.'),
    ],
)
def test_address_of_what_does_not_exist_says_so(opened, place: str, problem: str):
    page = opened(place)
    assert page.locator("#view .problem").inner_text() == problem
    assert heading(page) == "The lifecycle of a chat session"


def test_questions_lead_to_the_chosen_transport(opened):
    page = opened("#view=explore&transport=v3-async")
    page.locator("#view a", has_text="when the server comes back").click()
    assert heading(page) == "poll answered on v3-async"
    page.locator("#search").fill("server comes back")
    assert "when the server comes back on v3-async" in page.locator("#results").inner_text()


def test_service_is_named_as_the_giver_of_restore(opened):
    page = opened("#view=explore&command=restore&transport=v2")
    assert "only the service itself gives this command" in page.locator("#view .access").inner_text()
    assert page.locator("li.row .move .service").count() > 0
    assert opened("#view=explore&command=restore&transport=v3-async").locator("#view .access").count() == 0


def test_events_of_the_return_stand_in_order(opened):
    page = opened("#view=explore&trigger=poll%20answered&transport=v2")
    row = page.locator("li.row", has_text=re.compile("^offline"))
    events = [one.split()[0] for one in row.locator("ol.events li").all_inner_texts()]
    assert events == ["chatServerBackOnline", "connectionRestored", "reconnected", "messageReceived"]


def test_text_of_a_rejection_is_found_by_keys_alone(opened):
    page = opened()
    page.keyboard.press("/")
    page.keyboard.type("already restoring")
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.includes('restore')")
    assert heading(page).startswith("restore")
    assert page.locator("#search").input_value() == ""


def test_arrow_keys_switch_the_transport(opened):
    page = opened("#view=explore&state=offline&transport=v2")
    page.locator("#transport-v2").focus()
    page.keyboard.press("ArrowRight")
    assert heading(page) == "offline on cometd"
    assert page.evaluate("document.activeElement.id") == "transport-cometd"


def test_unknown_name_in_the_address_is_a_text(opened):
    page = opened(f"#view=explore&state={HOSTILE.replace('#', '')}")
    assert "There is no state" in page.locator("#view .problem").inner_text()


def test_other_transport_of_a_comparison_can_be_chosen(opened):
    page = opened("#view=compare&transport=v2&with=v3")
    page.select_option("#with", "cometd")
    page.wait_for_function("location.hash.includes('with=cometd')")
    assert heading(page) == "What differs between v2 and cometd"
    assert "only v2: polling" in page.locator("#view").inner_text()


def test_comparison_names_destination_guard_and_events(opened):
    page = opened("#view=compare&transport=v2&with=v3-async")
    found = page.locator("tr", has=page.get_by_text("found ended", exact=True)).locator("td").all_inner_texts()
    assert found == ["found ended", "to idle, publishes restoreTimeout", "to idle, publishes restoreFailed"]
    unanswered = page.locator("tr", has_text="restore unanswered").locator("td").all_inner_texts()
    assert [text.partition(",")[0] for text in unanswered[1:]] == ["to idle", "to async-dormant"]


def test_switch_overrides_the_colours_of_the_system(opened):
    page = opened(scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.select_option("#theme", "dark")
    assert page.evaluate(background) != light


# -- simulating --------------------------------------------------------------------------------------------------------


def test_walk_by_clicks_is_shown_undone_and_copied(opened):
    page = opened("#view=simulate&transport=v2&limit=0")
    for happening in ("open", "start", "poll-silent"):
        page.locator(f'[data-happening="{happening}"]').click()
    assert page.locator("#state-now").inner_text() == "offline"
    assert page.locator("svg.drawing:visible g.state.current").get_attribute("data-state") == "offline"
    assert "test_walk(webchat_server" in page.locator("#pytest").input_value()
    page.locator("#undo").click()
    assert page.locator("#state-now").inner_text() == "polling"
    assert page.url.endswith("walk=open.start")


def test_back_of_the_browser_undoes_a_step(opened):
    page = opened("#view=simulate&transport=v2&limit=0")
    for happening in ("open", "start"):
        page.locator(f'[data-happening="{happening}"]').click()
    page.go_back()
    page.wait_for_function("document.querySelector('#state-now').textContent === 'idle'")
    assert page.url.endswith("walk=open")


def test_limit_and_transport_keep_the_walk(opened):
    page = opened("#view=simulate&transport=v2&limit=5&walk=open.start.poll-silent")
    page.locator("#limit").fill("0")
    page.keyboard.press("Enter")
    assert page.locator("#state-now").inner_text() == "offline"
    page.locator("#transport-v3").check()
    assert page.locator("#state-now").inner_text() == "offline"
    page.locator("#transport-cometd").check()
    assert "This walk is none of cometd" in page.locator("#view .problem").inner_text()
    page.locator("#keep").click()
    assert page.url.endswith("walk=open.start")


@pytest.mark.parametrize("limit", ["-1", "2.5", ""])
def test_limit_that_is_none_is_named(opened, limit: str):
    page = opened("#view=simulate&transport=v2&limit=3&walk=open")
    page.locator("#limit").fill(limit)
    page.keyboard.press("Enter")
    assert page.locator("#limit-problem").inner_text().endswith(f'from 0 to 99, and not "{limit}"')
    assert "limit=3" in page.url


def test_narrow_page_hides_the_drawing_of_a_walk(opened):
    page = opened("#view=simulate&transport=v2", width=420)
    assert not page.locator("#drawings").is_visible()
    page.locator("#fold").click()
    assert page.locator("#drawings").is_visible()
    page.locator('[data-happening="open"]').click()
    assert page.locator("#drawings").is_visible()
    assert opened("#view=explore", width=420).locator("#drawings").is_visible()


def test_answer_to_a_guard_chooses_the_row(opened):
    page = opened("#view=simulate&transport=v2&limit=5&walk=open.start")
    page.locator("#single-rows summary").click()
    page.locator("#single-rows button", has_text="pollExceptionLimit? yes").click()
    assert page.locator("#state-now").inner_text() == "offline"
    assert "Not possible: step 3" in page.locator("#no-copy").inner_text()


def test_walk_by_keys_keeps_the_focus_in_the_view(opened):
    page = opened("#view=simulate&transport=v2")
    page.locator('[data-happening="open"]').focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('#view').contains(document.activeElement)")


def test_walk_of_another_transport_is_refused_with_a_text(opened):
    page = opened("#view=simulate&transport=v3&walk=open.start.poll-unavailable")
    assert "This walk is none of v3" in page.locator("#view .problem").inner_text()


# -- playing back ------------------------------------------------------------------------------------------------------


def test_keys_and_clicks_move_along_the_recording(opened):
    page = opened()
    assert heading(page).startswith("Play back")
    page.locator("#time").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "3 of" in page.locator(".time .controls").inner_text()
    assert page.evaluate("document.activeElement.id") == "time"
    page.keyboard.press("End")
    assert "close" in page.locator("#moment").inner_text()
    page.locator("#moments button", has_text="chatServerWentOffline").click()
    assert "state offline" in page.locator("#moment").inner_text()
    assert page.locator("svg.drawing:visible g.state.current").get_attribute("data-state") == "offline"
    link = page.locator("#moment-link").get_attribute("href")
    assert opened(link).locator("#moment").inner_text() == page.locator("#moment").inner_text()


def test_slider_stops_at_the_moment_before_its_place(opened):
    page = opened()
    page.locator("#time").fill("1000")
    shown = page.locator(".time .controls").inner_text()
    assert len(set(re.findall(r"(\d+) of (\d+)", shown)[0])) == 1, shown


def test_filter_leaves_the_chosen_kinds_and_folds_silence(opened):
    page = opened()
    for kind in ("event", "transition", "command", "request", "answer", "timer", "service"):
        page.locator(f"#show-{kind}").uncheck()
    kinds = page.locator("#moments .kind").all_inner_texts()
    assert kinds
    assert set(kinds) == {"message"}
    assert "without anything new" in page.locator("#moments").inner_text()
    assert "<img src=x" in page.locator("#moments").inner_text()


def test_file_is_opened_and_a_malformed_one_named(opened):
    page = opened("#view=playback")
    choose_file(page, "bad.jsonl", b'{"recording": 1, "transport": "v2"}\n{"time": "x"}\n')
    page.wait_for_selector("#view [role=alert]")
    assert page.locator("#view [role=alert]").inner_text() == "bad.jsonl: line 2: time: expected a number"
    choose_file(page, "good.jsonl", recorded())
    page.wait_for_selector("#moments")
    assert page.locator("#view [role=alert]").count() == 0


def test_recording_that_is_dropped_is_opened(opened):
    page = opened("#view=explore")
    page.evaluate(
        """(text) => {
            const data = new DataTransfer();
            data.items.add(new File([text], 'dropped.jsonl'));
            document.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        recorded().decode(),
    )
    page.wait_for_selector("#moments")
    assert heading(page) == "Play back v2"


def test_folder_that_is_dropped_is_named(opened):
    page = opened("#view=explore")
    page.evaluate(
        """() => {
            const problem = new DOMException('not a file', 'NotFoundError');
            const unread = { name: 'folder', text: () => Promise.reject(problem) };
            const event = new Event('drop', { bubbles: true, cancelable: true });
            Object.defineProperty(event, 'dataTransfer', { value: { files: [unread] } });
            document.dispatchEvent(event);
        }"""
    )
    page.wait_for_selector("#view [role=alert]")
    assert page.locator("#view [role=alert]").inner_text().startswith("folder: this cannot be read (not a file)")


# -- all views ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_every_view_is_accessible(opened, width: int, scheme: str):
    demand(AXE)
    SCREENSHOTS.mkdir(exist_ok=True)
    found = {}
    for name, place in VIEWS.items():
        page = opened(place, width, scheme)
        page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{scheme}.png", full_page=True)
        found[name] = violations(page)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{name} is too wide"
        wide = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth).length"
        assert page.evaluate(wide) == 0, f"a table of {name} is too wide"
        page.context.close()
    assert {name: rules for name, rules in found.items() if rules} == {}
