"""What can be typed in a chat beside messages: lines that begin with a slash."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import NamedTuple

from webchat_fsm.cli.telling import printable
from webchat_fsm.errors import WebChatError
from webchat_fsm.runtime.service import WebChatService

Answer = Iterator[str]


class Slash(NamedTuple):
    """One of them: how it is written, what it does, and the lines that it answers with."""

    usage: str
    meaning: str
    run: Callable[[WebChatService, list[str]], Answer]


class UsageError(WebChatError):
    """A line with a slash that cannot be understood; the text says how it is written."""


def _file(chat: WebChatService, words: list[str]) -> Answer:
    if not words:
        raise UsageError("which file? /file PATH [PATH ...]")
    chat.send_file(words)
    yield f"Sent: {', '.join(printable(word) for word in words)}"


def _save(chat: WebChatService, words: list[str]) -> Answer:
    if not 1 <= len(words) <= 2:
        raise UsageError("which file? /save ID [PATH]; the id stands beside the file's name")
    path = chat.download_file(words[0], to=words[1] if len(words) > 1 else None)
    yield f"Saved as {printable(path)}"


def _agents(chat: WebChatService, words: list[str]) -> Answer:
    agents = chat.get_agents().values()
    for agent in agents:
        yield f"{printable(agent.name)} ({agent.type.lower()}){'' if agent.connected else ', has left'}"
    if not agents:
        yield "Nobody has joined yet."


def _history(chat: WebChatService, words: list[str]) -> Answer:
    chat.fetch_history()
    yield from ()


def _state(chat: WebChatService, words: list[str]) -> Answer:
    yield f"{chat.state}; legal here: {', '.join(chat.legal_commands())}"


def _help(chat: WebChatService, words: list[str]) -> Answer:
    for slash in (*SLASHES.values(), *LEAVING.values()):
        yield f"{slash.usage:<24}{slash.meaning}"
    yield f"{'//TEXT':<24}say something that begins with a slash"


def _nothing(chat: WebChatService, words: list[str]) -> Answer:
    yield from ()


SLASHES = {
    "/help": Slash("/help", "this list", _help),
    "/agents": Slash("/agents", "who is there", _agents),
    "/file": Slash("/file PATH [PATH ...]", "send files", _file),
    "/save": Slash("/save ID [PATH]", "fetch a file that was sent", _save),
    "/history": Slash("/history", "older messages of an asynchronous chat", _history),
    "/state": Slash("/state", "the state of the chat, and what is legal in it", _state),
}
QUIT, LEAVE = "/quit", "/leave"
LEAVING = {
    QUIT: Slash(QUIT, "end the chat; so do Ctrl-C and Ctrl-D", _nothing),
    LEAVE: Slash(LEAVE, "go without ending the chat; needs --store", _nothing),
}
"""Those that end the program, which is the conversation's affair."""


def carry_out(chat: WebChatService, line: str) -> Answer:
    """Do what a line with a slash says; raises a `WebChatError` where it cannot be done."""
    try:
        name, *words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{error} in {printable(line)}") from None
    slash = SLASHES.get(name)
    if name in LEAVING:
        raise UsageError(f"{name} stands alone on its line")
    if slash is None:
        raise UsageError(f"there is no {printable(name)}; /help lists what there is")
    yield from slash.run(chat, words)
