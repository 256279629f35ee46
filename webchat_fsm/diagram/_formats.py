"""The formats in which one drawing can be printed, by their names: the one place where a format is registered.

A format is a function of a graph and a style, which it may ignore. Text ends with a line end; a picture of pixels is
bytes. The command line offers each format that is registered here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from webchat_fsm._errors import missing_extra
from webchat_fsm.diagram._dot import dot
from webchat_fsm.diagram._graph import Graph, Row
from webchat_fsm.diagram._mermaid import mermaid
from webchat_fsm.diagram._plantuml import plantuml
from webchat_fsm.diagram._scxml import scxml
from webchat_fsm.diagram._style import DEFAULT, Style, Theme
from webchat_fsm.diagram._svg import svg
from webchat_fsm.diagram._xstate import xstate
from webchat_fsm.lifecycle._transports import Transport


class Format(Protocol):
    """A function that draws a graph of any machine."""

    def __call__(self, graph: Graph[Any], style: Style, /) -> str | bytes:
        """Return the drawing as text, or as bytes where it is no text."""
        ...


PNG_SCALE = 2
"""Pixels of a PNG for one of the SVG: sharp on dense screens, and in a document that scales it."""


def png(graph: Graph[Row], style: Style = DEFAULT) -> bytes:
    """Return the picture as PNG, twice the size of the SVG; `auto` means light, as pixels cannot follow the page.

    Raises `MissingExtraError` without the extra `diagrams`.
    """
    fixed = replace(style, theme=Theme.LIGHT) if style.theme is Theme.AUTO else style
    return pixels(svg(graph, fixed))


def pixels(picture: str) -> bytes:
    """Return an SVG picture with plain colours as PNG; raises `MissingExtraError` without the extra `diagrams`."""
    try:
        import resvg_py
    except ImportError as missing:
        raise missing_extra("drawing a PNG", "diagrams", "resvg-py") from missing
    return bytes(resvg_py.svg_to_bytes(svg_string=picture, zoom=PNG_SCALE))


class Engine(NamedTuple):
    """A format of the whole machine on one transport for foreign engines: it has no look."""

    render: Callable[[Transport], str]
    suffix: str
    """Suffix of its files, one for each transport."""
    about: str
    """End of the sentence that describes such a file."""


ENGINES: Mapping[str, Engine] = {
    "scxml": Engine(scxml, "scxml", "as SCXML, which interpreters of that recommendation run"),
    "xstate": Engine(xstate, "xstate.json", "as JSON for XState 5"),
    "plantuml": Engine(plantuml, "puml", "as PlantUML text, complete"),
}


def _machine(name: str) -> Format:
    """Return one of `ENGINES` as a format; it raises ValueError for a graph with anything that it cannot write."""

    def written(graph: Graph[Any], style: Style, /) -> str:
        whole = graph.name == "lifecycle" and not graph.part and len(graph.views) == 1
        if not whole or graph.notes or graph.taken is not None:
            raise ValueError(
                f"{name} has the whole lifecycle on one transport, without notes and counts: give it"
                " `lifecycle(transport)`"
            )
        return ENGINES[name].render(Transport(graph.views[0]))

    return written


FORMATS: Mapping[str, Format] = {
    "svg": svg,
    "png": png,
    "mermaid": mermaid,
    "dot": dot,
    **{name: _machine(name) for name in ENGINES},
}
"""Every format by its name, the default of the command line first."""


def rendered(graph: Graph[Row], form: str, style: Style = DEFAULT) -> bytes:
    """Return a drawing in a format as bytes; raises ValueError for an unknown format."""
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r}: choose {', '.join(FORMATS)}")
    drawn = FORMATS[form](graph, style)
    return drawn if isinstance(drawn, bytes) else drawn.encode()
