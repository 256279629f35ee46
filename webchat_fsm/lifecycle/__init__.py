"""The lifecycle as data: states, triggers, guards, flags, effects, transitions, and the legality of each command."""

from webchat_fsm.lifecycle._legality import COMMANDS, By, Cell, Rule, legality
from webchat_fsm.lifecycle._states import State, meaning
from webchat_fsm.lifecycle._table import (
    CONTENT,
    TRANSITIONS,
    Effect,
    Flag,
    Guard,
    Publication,
    Transition,
    Trigger,
    reachable,
    rows_of,
)
from webchat_fsm.lifecycle._transports import Capabilities, Transport

__all__ = [
    "COMMANDS",
    "CONTENT",
    "TRANSITIONS",
    "By",
    "Capabilities",
    "Cell",
    "Effect",
    "Flag",
    "Guard",
    "Publication",
    "Rule",
    "State",
    "Transition",
    "Transport",
    "Trigger",
    "legality",
    "meaning",
    "reachable",
    "rows_of",
]
