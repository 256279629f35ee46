"""Drawings and tables, generated from the transition tables: table, graph, renderer, file.

`lifecycle` and `bayeux` give the graph of a machine, the whole or a part of it; `annotate` and `walked` add notes and
counts; a renderer draws it, in the look of a `Style`::

    from webchat_fsm.diagram import DEFAULT, Part, lifecycle, svg

    outage = lifecycle(Transport.V2, Part.OUTAGE)
    Path("outage.svg").write_text(svg(outage, DEFAULT.with_theme("dark")))

`scxml`, `xstate` and `plantuml` return the whole machine of one transport for a foreign engine.

`write` and `check` bring a folder up to date, or compare it. `svg`, `png` and `write` need the extra `diagrams`, else
they raise `webchat_fsm.MissingExtraError`. The command line is `webchat-fsm diagram`.
"""

from webchat_fsm.diagram._files import check, write
from webchat_fsm.diagram._formats import FORMATS, dot, mermaid, png
from webchat_fsm.diagram._machines import Part, annotate, bayeux, lifecycle, parts_of, walked
from webchat_fsm.diagram._picture import DARK, DEFAULT, LIGHT, Palette, Style, Theme
from webchat_fsm.diagram._statecharts import plantuml, scxml, xstate
from webchat_fsm.diagram._svg import svg

__all__ = [
    "DARK",
    "DEFAULT",
    "FORMATS",
    "LIGHT",
    "Palette",
    "Part",
    "Style",
    "Theme",
    "annotate",
    "bayeux",
    "check",
    "dot",
    "lifecycle",
    "mermaid",
    "parts_of",
    "plantuml",
    "png",
    "scxml",
    "svg",
    "walked",
    "write",
    "xstate",
]
