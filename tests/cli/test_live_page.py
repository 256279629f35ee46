"""Check the live view in Chromium: a chat is begun, answered, disturbed and saved, and nothing is loaded elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.chromium import AXE, SCREENSHOTS, demand, launched, listen, violations
from tests.limits import LONG
from webchat_fsm._cli.live import Live
from webchat_fsm._cli.ui import UiServer
from webchat_fsm.diagram._explorer import page as explorer_page
from webchat_fsm.server import ChatServer
from webchat_fsm.server.front import HttpFront

pytestmark = [pytest.mark.needs("chromium", "playwright"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as chromium:
        yield chromium


@pytest.fixture
def opened(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Open the page in the colours that a parameter names; at the end nothing was logged or requested elsewhere."""
    with opened_in(browser, request.param) as page:
        yield page


@contextmanager
def opened_in(browser: Any, scheme: str) -> Iterator[Any]:
    complaints: list[str] = []
    requested: list[str] = []
    front = HttpFront(ChatServer())
    with front, UiServer(Live(front.server, front.url, lambda: 0.0), "127.0.0.1") as ui:
        context = browser.new_context(viewport={"width": 1400, "height": 1000}, color_scheme=scheme)
        context.set_default_timeout(LONG * 1000)
        page = context.new_page()
        listen(page, complaints, requested)
        page.goto(ui.url)
        yield page
        context.close()
        assert complaints == []
        assert [one for one in requested if not one.startswith((ui.url, "file:"))] == []


def say(page: Any, box: str, text: str) -> None:
    page.fill(box, text)
    page.keyboard.press("Enter")


def await_state(page: Any, state: str) -> None:
    """Wait until the view and the drawing show a state."""
    page.wait_for_selector(f'#live-state:text-is("{state}")')
    page.wait_for_selector(f'svg.drawing:visible g.state.current[data-state="{state}"]')


def test_page_opened_while_it_is_drawn_follows_by_itself(browser, monkeypatch):
    drawn = threading.Event()
    monkeypatch.setattr("webchat_fsm._cli.ui.page", lambda **about: drawn.wait(LONG) and explorer_page(**about))
    with opened_in(browser, "light") as page:
        assert "The lifecycle is being drawn" in page.locator("body").inner_text()
        drawn.set()
        page.wait_for_selector("#live-start")


@pytest.mark.parametrize("opened", ["light", "dark"], indirect=True)
def test_lifecycle_lights_up_while_somebody_chats(opened, request, tmp_path):
    page = opened
    assert page.locator("#live-text-send").is_disabled()
    page.select_option("#live-transport", "v2")
    page.click("#live-start")
    await_state(page, "polling")
    say(page, "#agent-text", "Hello <img src=x onerror='window.hostile = 1'>")
    page.wait_for_selector('#live-log li:has-text("Hello <img")')
    page.fill("#live-text", "half a sentence")
    page.select_option("#fault-operation", "refresh")
    page.fill("#fault-times", "1000")
    page.click("#fault-drop")
    await_state(page, "offline")
    assert page.locator("#live-text").input_value() == "half a sentence"
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"live-{request.node.callspec.params['opened']}.png")
    page.click("#fault-clear")
    await_state(page, "polling")
    with page.expect_download() as download:
        page.click("#live-save")
    page.click("#live-end")
    await_state(page, "ended")
    page.click("#live-playback")
    page.wait_for_selector(".moments .chosen")
    saved = tmp_path / "session.html"
    download.value.save_as(saved)
    page.goto(saved.as_uri())
    page.wait_for_selector('.moments li:has-text("Hello <img")')
    assert page.locator("#views a").all_inner_texts() == ["Explore", "Compare", "Simulate", "Play back"]
    assert page.evaluate("window.hostile ?? null") is None


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_second_chat_on_another_transport_is_drawn(opened):
    page = opened
    for transport, state in (("v3", "polling"), ("cometd", "active")):
        page.select_option("#live-transport", transport)
        page.click("#live-start")
        await_state(page, state)
        assert page.locator("svg.drawing:visible").get_attribute("data-transport") == transport
        page.click("#agent-join")
        page.wait_for_selector('#live-log li:has-text("agentConnected")')
        page.click("#live-leave")
        page.click("#live-restore")
        await_state(page, state)
        page.click("#live-end")
        await_state(page, "ended")


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_window_shows_drawing_log_agent_and_faults_at_once(opened):
    page = opened
    page.click("#live-start")
    await_state(page, "polling")
    for height in (1000, 720):
        page.set_viewport_size({"width": 1280, "height": height})
        for shown in ("svg.drawing:visible", "#live-log", "#live-text", "#agent-text", "#fault-reorder", "#live-save"):
            box = page.locator(shown).bounding_box()
            assert box["y"] + box["height"] <= height, f"{shown} ends below a window of {height} pixels: {box}"
        assert page.locator("#live-log").bounding_box()["height"] >= 150


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_phone_shows_the_log_before_agent_and_faults(opened):
    page = opened
    page.set_viewport_size({"width": 420, "height": 900})
    parts = ("#drawings", "#live-state", "#live-text", "#live-log", "#agent-text", "#fault-drop")
    tops = [page.locator(one).bounding_box()["y"] for one in parts]
    assert tops == sorted(tops)


@pytest.mark.parametrize("opened", ["light", "dark"], indirect=True)
def test_live_view_is_accessible_and_fits_a_phone(opened, request):
    demand(AXE)
    page = opened
    page.click("#live-start")
    await_state(page, "polling")
    page.click("#fault-http_status")
    page.wait_for_selector('#live-log li:has-text("http_status=500")')
    for width in (1400, 400):
        page.set_viewport_size({"width": width, "height": 900})
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"live-{width}-{request.node.callspec.params['opened']}.png", full_page=True)
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
