"""The customer side of a Genesys web chat as an explicit state machine with a synchronous API.

`WebChatService` is one chat: commands, events and the state. `Bus` carries the same by the names of the reference.
`webchat_fsm.lifecycle` holds the table of states, `webchat_fsm.server` a chat server to try it on,
`webchat_fsm.testing` a kit for tests, and `webchat_fsm.diagram` the drawings. The command line is `webchat-fsm`.

A name is imported at its first use.
"""

import typing

# First, before anything can log: it keeps what a log handler raises from the chat.
from webchat_fsm._package import public_names

__version__ = "0.2.0"

# The same names twice, as type checkers read only the imports, and the interpreter only the table.
if typing.TYPE_CHECKING:
    from webchat_fsm._config import AsyncConfig as AsyncConfig
    from webchat_fsm._config import ClientConfig as ClientConfig
    from webchat_fsm._config import CometDConfig as CometDConfig
    from webchat_fsm._config import Config as Config
    from webchat_fsm._config import RetryConfig as RetryConfig
    from webchat_fsm._config import TlsConfig as TlsConfig
    from webchat_fsm._config import TransportConfig as TransportConfig
    from webchat_fsm._config import XhrConfig as XhrConfig
    from webchat_fsm._core.saved_session import SavedFilter as SavedFilter
    from webchat_fsm._core.saved_session import SavedSession as SavedSession
    from webchat_fsm._errors import ChatClosed as ChatClosed
    from webchat_fsm._errors import CommandRejected as CommandRejected
    from webchat_fsm._errors import ConfigError as ConfigError
    from webchat_fsm._errors import HandlerWaitError as HandlerWaitError
    from webchat_fsm._errors import MissingExtraError as MissingExtraError
    from webchat_fsm._errors import PoolFull as PoolFull
    from webchat_fsm._errors import Sent as Sent
    from webchat_fsm._errors import StoreError as StoreError
    from webchat_fsm._errors import TransportError as TransportError
    from webchat_fsm._errors import WaitTimeout as WaitTimeout
    from webchat_fsm._errors import WebChatError as WebChatError
    from webchat_fsm._model import Message as Message
    from webchat_fsm._model import Participant as Participant
    from webchat_fsm._model import Response as Response
    from webchat_fsm._model import Sender as Sender
    from webchat_fsm._model import SessionData as SessionData
    from webchat_fsm._model import Stats as Stats
    from webchat_fsm._model import Transcript as Transcript
    from webchat_fsm._runtime.bus import Before as Before
    from webchat_fsm._runtime.bus import Bus as Bus
    from webchat_fsm._runtime.bus import BusEvent as BusEvent
    from webchat_fsm._runtime.bus import BusHandler as BusHandler
    from webchat_fsm._runtime.bus import CommandCall as CommandCall
    from webchat_fsm._runtime.bus import CommandHandler as CommandHandler
    from webchat_fsm._runtime.bus import Mountable as Mountable
    from webchat_fsm._runtime.bus import Plugin as Plugin
    from webchat_fsm._runtime.clock import Clock as Clock
    from webchat_fsm._runtime.clock import Driver as Driver
    from webchat_fsm._runtime.clock import ManualClock as ManualClock
    from webchat_fsm._runtime.clock import ManualDriver as ManualDriver
    from webchat_fsm._runtime.clock import Timed as Timed
    from webchat_fsm._runtime.delivery import AnyEvent as AnyEvent
    from webchat_fsm._runtime.delivery import ChatEvent as ChatEvent
    from webchat_fsm._runtime.delivery import Handler as Handler
    from webchat_fsm._runtime.delivery import Subscription as Subscription
    from webchat_fsm._runtime.failures import Health as Health
    from webchat_fsm._runtime.failures import PoolHealth as PoolHealth
    from webchat_fsm._runtime.failures import Recorder as Recorder
    from webchat_fsm._runtime.http import Http as Http
    from webchat_fsm._runtime.methods import Decorator as Decorator
    from webchat_fsm._runtime.outcome import Outcome as Outcome
    from webchat_fsm._runtime.outcome import Receipt as Receipt
    from webchat_fsm._runtime.pooled_service import PoolDecorator as PoolDecorator
    from webchat_fsm._runtime.pooled_service import PoolHandler as PoolHandler
    from webchat_fsm._runtime.pooled_service import PoolSubscription as PoolSubscription
    from webchat_fsm._runtime.service import Explanation as Explanation
    from webchat_fsm._runtime.service import WebChatService as WebChatService
    from webchat_fsm._runtime.session_pool import SessionPool as SessionPool
    from webchat_fsm._runtime.store import FileStore as FileStore
    from webchat_fsm._runtime.store import MemoryStore as MemoryStore
    from webchat_fsm._runtime.store import SessionStore as SessionStore
    from webchat_fsm._runtime.thread_driver import ThreadDriver as ThreadDriver
    from webchat_fsm._wire.request import FilePart as FilePart
    from webchat_fsm._wire.request import HttpAnswer as HttpAnswer
    from webchat_fsm._wire.request import Request as Request
    from webchat_fsm.lifecycle import Capabilities as Capabilities
    from webchat_fsm.lifecycle import State as State
    from webchat_fsm.lifecycle import Transport as Transport
    from webchat_fsm.lifecycle._events import AgentTyping as AgentTyping
    from webchat_fsm.lifecycle._events import Failure as Failure
    from webchat_fsm.lifecycle._events import MessageReceived as MessageReceived
    from webchat_fsm.lifecycle._events import ParticipantChanged as ParticipantChanged
    from webchat_fsm.lifecycle._events import Restored as Restored
    from webchat_fsm.lifecycle._events import RestoreFailed as RestoreFailed
    from webchat_fsm.lifecycle._events import Started as Started
else:
    __all__, __getattr__, __dir__ = public_names(
        __name__,
        {
            "webchat_fsm._config": (
                "AsyncConfig ClientConfig CometDConfig Config RetryConfig TlsConfig TransportConfig XhrConfig"
            ),
            "webchat_fsm._core.saved_session": "SavedFilter SavedSession",
            "webchat_fsm._errors": (
                "ChatClosed CommandRejected ConfigError HandlerWaitError MissingExtraError PoolFull Sent "
                "StoreError TransportError WaitTimeout WebChatError"
            ),
            "webchat_fsm._model": "Message Participant Response Sender SessionData Stats Transcript",
            "webchat_fsm._runtime.bus": "Before Bus BusEvent BusHandler CommandCall CommandHandler Mountable Plugin",
            "webchat_fsm._runtime.clock": "Clock Driver ManualClock ManualDriver Timed",
            "webchat_fsm._runtime.delivery": "AnyEvent ChatEvent Handler Subscription",
            "webchat_fsm._runtime.failures": "Health PoolHealth Recorder",
            "webchat_fsm._runtime.http": "Http",
            "webchat_fsm._runtime.methods": "Decorator",
            "webchat_fsm._runtime.outcome": "Outcome Receipt",
            "webchat_fsm._runtime.pooled_service": "PoolDecorator PoolHandler PoolSubscription",
            "webchat_fsm._runtime.service": "Explanation WebChatService",
            "webchat_fsm._runtime.session_pool": "SessionPool",
            "webchat_fsm._runtime.store": "FileStore MemoryStore SessionStore",
            "webchat_fsm._runtime.thread_driver": "ThreadDriver",
            "webchat_fsm._wire.request": "FilePart HttpAnswer Request",
            "webchat_fsm.lifecycle": "Capabilities State Transport",
            "webchat_fsm.lifecycle._events": (
                "AgentTyping Failure MessageReceived ParticipantChanged RestoreFailed Restored Started"
            ),
        },
        modules=frozenset({"lifecycle"}),
    )
