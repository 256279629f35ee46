"""Check the explorer page on paper, in Chromium: light, complete, and without what only a click uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chromium import launched
from tests.diagram.test_explorer_page import VIEWS, recorded
from webchat_fsm.diagram._explorer import page as explorer_page

pytestmark = [pytest.mark.needs("chromium", "playwright"), pytest.mark.timeout(300)]

CLICKED = "button:visible:not([data-happening], [data-moment]), input:visible:not([type=checkbox]), select:visible"
"""What is of no use on paper; the buttons of a step and of a moment are texts there, too."""
CUT = """[...document.querySelectorAll('body *')].filter((one) => one.checkVisibility()
    && getComputedStyle(one).overflowY !== 'visible' && !one.matches('.hidden, caption, svg')
    && (one.scrollHeight > one.clientHeight + 1 || one.scrollWidth > one.clientWidth + 1)).map((one) => one.id)"""
A4 = {"width": 718, "height": 1047}
"""The page inside margins of a centimetre, in pixels."""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a function that opens a view in a dark window, and then shows it as it is printed."""
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    path.write_bytes(explorer_page(recorded()).encode())
    with launched() as chromium:

        def open_at(place: str, width: int = 1280) -> Any:
            page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme="dark")
            page.goto(path.as_uri() + place)
            page.select_option("#theme", "dark")
            page.emulate_media(media="print", color_scheme="dark")
            page.set_viewport_size(A4)
            return page

        yield open_at


@pytest.mark.parametrize("name", VIEWS)
def test_printed_view_is_light_and_complete(printed, name: str):
    page = printed(VIEWS[name])
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert page.locator(CLICKED).all_inner_texts() == []
    assert page.evaluate(CUT) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("name", sorted(VIEWS.keys() - {"compare"}))
def test_printed_drawing_is_named_and_on_the_first_page(printed, name: str, width: int):
    page = printed(VIEWS[name], width)
    box = page.locator("svg.drawing:visible").bounding_box()
    assert box["height"] > 500
    assert box["y"] + box["height"] < A4["height"]
    title = page.evaluate("getComputedStyle(document.querySelector('#figure'), '::before').content")
    assert title == f'"On transport {page.locator("svg.drawing:visible").get_attribute("data-transport")}"'
    page.close()


def test_printed_walk_has_its_test_and_rejections(printed):
    page = printed(VIEWS["simulate"])
    assert "def test_walk" in page.locator("pre.paper:visible").inner_text()
    assert "There is already an active chat session" in page.locator("#rejected li").nth(1).inner_text()
    assert page.locator("#rejected li").nth(1).evaluate("(one) => one.checkVisibility()")
    page.close()


def test_printed_page_count_has_no_empty_page(printed):
    page = printed(VIEWS["overview"])
    pages = re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))
    assert len(pages) == 2
    page.close()
