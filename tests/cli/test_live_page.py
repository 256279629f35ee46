"""Check the live view in Chromium: a chat is begun, answered, disturbed and saved, and nothing is loaded elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.chromium import SCREENSHOTS, demand_axe, launched, listen, violations
from tests.limits import LONG
from webchat_fsm._cli.live import Live
from webchat_fsm._cli.ui import UiServer
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
    complaints: list[str] = []
    requested: list[str] = []
    front = HttpFront(ChatServer())
    with front, UiServer(Live(front.server, front.url, lambda: 0.0), "127.0.0.1") as ui:
        context = browser.new_context(viewport={"width": 1400, "height": 1000}, color_scheme=request.param)
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


@pytest.mark.parametrize("opened", ["light", "dark"], indirect=True)
def test_live_view_is_accessible_and_fits_a_phone(opened):
    demand_axe()
    page = opened
    page.click("#live-start")
    await_state(page, "polling")
    page.click("#fault-http_status")
    page.wait_for_selector('#live-log li:has-text("http_status=500")')
    for width in (1400, 400):
        page.set_viewport_size({"width": width, "height": 900})
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
