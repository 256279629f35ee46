"""Drive the system's Chromium in tests of pages: its start, what a page reports, and the checker of accessibility."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import needs

ROOT = Path(__file__).parents[1]
SCREENSHOTS = ROOT / "screenshots"
PACKAGES = Path(os.environ.get("WEBCHAT_NODE_MODULES", ROOT / ".venvs/npm/node_modules"))
"""Where the npm packages are that run in pages: `npm install --prefix .venvs/npm axe-core mermaid`."""
AXE = PACKAGES / "axe-core/axe.min.js"
"""The checker of accessibility."""


@contextmanager
def launched() -> Iterator[Any]:
    """Run the browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=needs.find("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()


def listen(page: Any, complaints: list[str], requested: list[str]) -> None:
    """Append what the page logs or raises, and the URL of each of its requests."""
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))


def demand(file: Path) -> None:
    """Skip or fail the running test where a file of an npm package is not installed."""
    if not file.is_file():
        package = file.relative_to(PACKAGES).parts[0]
        needs.lack(package, f"{file} is missing: npm install --prefix .venvs/npm {package}")


def violations(page: Any) -> list[tuple[str, str]]:
    """Return the rules of accessibility that the page breaks, each with an element."""
    # By the debugger, as the policy of the page lets no further script in.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then((result) => result.violations)")
    return [(one["id"], node["html"][:120]) for one in found for node in one["nodes"][:3]]
