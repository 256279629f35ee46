"""The look of the pictures: sizes, fonts, and the colours of a light and of a dark page.

Every picture, of the lifecycle and of a sequence, takes its colours from here. A picture for both kinds of page names
them as variables of its style sheet, and the viewer's preference chooses; a picture for one kind has the plain colours,
which every renderer reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum


class Theme(StrEnum):
    """The colours of a picture: for light pages, for dark ones, or by the viewer's preference."""

    AUTO = "auto"
    LIGHT = "light"
    DARK = "dark"


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one kind of page, each as CSS writes it."""

    page: str = "#ffffff"
    ink: str = "#1f2328"
    """Texts and the arrows of several causes."""
    faint: str = "#59636e"
    """Meanings, notes and the legend."""
    state: str = "#f6f8fa"
    """Background of a state."""
    border: str = "#59636e"
    """Border of a state."""
    box: str = "#eaf2fd"
    """Background of a frame round several states."""
    frame: str = "#a5c4ee"
    """Border of such a frame."""
    command: str = "#0550ae"
    service: str = "#6639ba"
    fact: str = "#116329"
    failure: str = "#b3261e"
    walked: str = "#fff3c4"
    """Background of a state that was entered, where a path is drawn."""
    note: str = "#8a4600"
    """Notes of the user."""


LIGHT = Palette()
DARK = Palette(
    page="#0d1117",
    ink="#e6edf3",
    faint="#a4aeb9",
    state="#1c2430",
    border="#8b949e",
    box="#121d2f",
    frame="#2f4a73",
    command="#79b8ff",
    service="#c3a6ff",
    fact="#63d279",
    failure="#ff8f87",
    walked="#40350c",
    note="#f0b35e",
)


@dataclass(frozen=True, slots=True)
class Style:
    """The look of a picture; `replace` changes single colours or sizes of it.

    Sizes are pixels at the natural width of the picture. `max_width` is the natural width at most, if the drawing can
    be arranged so.
    """

    theme: Theme = Theme.AUTO
    light: Palette = field(default_factory=Palette)
    dark: Palette = DARK
    font: str = "Verdana, 'DejaVu Sans', sans-serif"
    """CSS font families; one that is wider than Verdana does not fit its boxes."""
    font_size: float = 14
    max_width: float = 880
    link: str = "{name}.md#{anchor}"
    """Target of the links; `{name}` is that of the table, `{anchor}` the row or state; empty for no links."""

    def with_theme(self, theme: str) -> Style:
        """Return the same style for another kind of page; raises ValueError for an unknown one."""
        return replace(self, theme=Theme(theme))


DEFAULT = Style()

_VARIABLE = re.compile(r"var\(--([a-z]+)\)")


def style_sheet(rules: str, style: Style) -> str:
    """Return the text of a style element: rules in which `var(--name)` is a colour of the palette."""
    if style.theme is Theme.AUTO:
        dark = f"@media (prefers-color-scheme: dark) {{\n.drawing {{ {_variables(style.dark)} }}\n}}"
        return f".drawing {{ {_variables(style.light)} }}\n{dark}\n{rules}"
    palette = style.dark if style.theme is Theme.DARK else style.light
    # Not every renderer of SVG reads variables, and there is nothing to choose.
    return _VARIABLE.sub(lambda found: str(getattr(palette, found[1])), rules)


def _variables(palette: Palette) -> str:
    return " ".join(f"--{one.name}: {getattr(palette, one.name)};" for one in fields(palette))
