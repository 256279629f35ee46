"""The size of a text before it is drawn, by the widths of one font that most systems have.

The widths are those of DejaVu Sans, which equal those of Verdana to a hundredth. Other fonts of the fallback list are
narrower, so a text fits the space that is kept for it whichever of them a viewer takes.
"""

from __future__ import annotations

from collections.abc import Iterator

FIRST = 32
"""The character that the first width belongs to."""

# fmt: off
REGULAR = (
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636,
    636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863,
    748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635,
    615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636,
    337, 636, 838,
)
"""Thousandths of the font size, for the characters from `FIRST` on."""
BOLD = (
    348, 456, 521, 838, 696, 1002, 872, 306, 457, 457, 523, 838, 380, 415, 380, 365, 696, 696, 696, 696, 696, 696, 696,
    696, 696, 696, 400, 400, 838, 838, 838, 580, 1000, 774, 762, 734, 830, 683, 683, 821, 837, 372, 372, 775, 637, 995,
    837, 850, 733, 850, 770, 720, 682, 812, 774, 1103, 771, 724, 725, 457, 365, 457, 838, 500, 500, 675, 716, 593, 716,
    678, 435, 716, 712, 343, 343, 665, 343, 1042, 712, 687, 716, 716, 493, 595, 478, 712, 652, 924, 645, 652, 582, 712,
    365, 712, 838,
)
"""The same for bold characters."""
# fmt: on

WIDEST = 1040
"""Width of a character that is not listed: ideographs and emoji are one em wide at most."""
LINE_HEIGHT = 1.25
"""Distance of two lines, in font sizes."""


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of a text in one line, in the unit of the font size."""
    widths = BOLD if bold else REGULAR
    return sum(_width(character, widths) for character in text) * size / 1000


def wrapped(text: str, width: float, size: float, *, bold: bool = False) -> list[str]:
    """Break a text at blanks into lines of a width at most; a longer word has a line of its own."""
    return [*_lines(text.split(), width, size, bold)] or [""]


def balanced(text: str, width: float, size: float) -> list[str]:
    """Break a text as `wrapped` does, into lines of about the same length."""
    lines = wrapped(text, width, size)
    # Narrower by steps of a quarter of a letter, as long as no further line is needed.
    while len(closer := wrapped(text, width := width - size / 4, size)) == len(lines) and width > size:
        lines = closer
    return lines


def _lines(words: list[str], width: float, size: float, bold: bool) -> Iterator[str]:
    line = ""
    for word in words:
        longer = f"{line} {word}" if line else word
        if line and text_width(longer, size, bold=bold) > width:
            yield line
            longer = word
        line = longer
    if line:
        yield line


def _width(character: str, widths: tuple[int, ...]) -> int:
    place = ord(character) - FIRST
    return widths[place] if 0 <= place < len(widths) else WIDEST
