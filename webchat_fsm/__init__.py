"""The customer side of a Genesys web chat as an explicit state machine with a synchronous API."""

import webchat_fsm.logs  # noqa: F401  # before anything can log
from webchat_fsm.config import Config
from webchat_fsm.errors import (
    ChatClosed,
    CommandRejected,
    ConfigError,
    HandlerWaitError,
    StoreError,
    TransportError,
    WaitTimeout,
    WebChatError,
)
from webchat_fsm.lifecycle.events import (
    AgentTyping,
    Failure,
    MessageReceived,
    ParticipantChanged,
    Restored,
    RestoreFailed,
    Started,
)
from webchat_fsm.lifecycle.table import State
from webchat_fsm.lifecycle.words import Message, Participant, Response, Sender, SessionData, Stats, Transcript
from webchat_fsm.runtime.bus import Bus, BusEvent
from webchat_fsm.runtime.clock import ManualClock
from webchat_fsm.runtime.delivery import ChatEvent, Subscription
from webchat_fsm.runtime.driver import ManualDriver, ThreadDriver
from webchat_fsm.runtime.outcome import Outcome
from webchat_fsm.runtime.receipt import Receipt
from webchat_fsm.runtime.service import Explanation, Health, WebChatService
from webchat_fsm.runtime.store import FileStore, MemoryStore, SessionStore

__all__ = [
    "AgentTyping",
    "Bus",
    "BusEvent",
    "ChatClosed",
    "ChatEvent",
    "CommandRejected",
    "Config",
    "ConfigError",
    "Explanation",
    "Failure",
    "FileStore",
    "HandlerWaitError",
    "Health",
    "ManualClock",
    "ManualDriver",
    "MemoryStore",
    "Message",
    "MessageReceived",
    "Outcome",
    "Participant",
    "ParticipantChanged",
    "Receipt",
    "Response",
    "RestoreFailed",
    "Restored",
    "Sender",
    "SessionData",
    "SessionStore",
    "Started",
    "State",
    "Stats",
    "StoreError",
    "Subscription",
    "ThreadDriver",
    "Transcript",
    "TransportError",
    "WaitTimeout",
    "WebChatError",
    "WebChatService",
]
