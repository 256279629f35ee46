"""One chat at a terminal or on pipes: the lines of the input, the commands among them, and the output."""

from __future__ import annotations

import asyncio
import shlex
import threading
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from webchat_fsm import ChatEvent, CommandRejected, Message, MessageReceived, SessionStore, WebChatError, WebChatService
from webchat_fsm._cli.command import DONE, FAILED, WAIT, print_error, unicode
from webchat_fsm._cli.output import ChatLine, Screen, as_json, event_lines, event_record, printable, rejection
from webchat_fsm.lifecycle._events import EVENTS

QUIT, LEAVE = "/quit", "/leave"

CHAT_LOST = {
    "error": True,
    **dict.fromkeys(("messageReceived", "reconnected", "connectionRestored", "started", "restored"), False),
}
"""Events after which the chat is lost, or is not any more; if it ends lost, the program has failed."""


class Conversation:
    """Run one chat from its start or restore to its end.

    `echoes` says that the input stays visible on the screen, so that a message is not printed again as it comes back.
    """

    def __init__(
        self, chat: WebChatService, screen: Screen, options: Namespace, store: SessionStore | None, *, echoes: bool
    ) -> None:
        self._chat, self._screen, self._options, self._store, self._echoes = chat, screen, options, store, echoes
        self._ended = threading.Event()
        self._lines: PlainLines | PromptLines | None = None
        self._expected_echoes: Counter[str] = Counter()
        self._typing = ""
        self._restore_failed = self._lost = self._leaving = self._starting = False
        # A handler must not raise, so a closed pipe ends the conversation like the end of the chat.
        screen.on_broken = self.stop
        # Before `open`: restoring publishes events.
        for name in EVENTS:
            chat.subscribe(name, self._on_event)

    def status(self) -> str:
        """Return the text of the status line below the prompt."""
        typing = f"{self._typing} is typing" if self._typing else "/help lists commands, Ctrl-C ends the chat"
        return f"{self._chat.state} | {typing}"

    def stop(self) -> None:
        """End the conversation, from any thread."""
        self._ended.set()
        if self._lines is not None:
            self._lines.stop()

    def begin(self) -> None:
        """Start a chat, unless `open` has restored one; raises `WebChatError` if restoring has failed."""
        if self._chat.state.has_session:
            return
        if self._restore_failed and self._store is not None and self._store.load() is not None:
            # A new chat would overwrite the saved one, which may be restored when the server is back.
            file = self._options.store
            raise WebChatError(f"the chat saved in {file} could not be restored: try later, or remove the file")
        given = self._options
        fields = {name: getattr(given, name) for name in ("nickname", "firstname", "lastname", "email", "subject")}
        # A failed start is raised by the command, so its `error` event must not be printed a second time.
        self._starting = True
        self._chat.start_chat(**fields, user_data=dict(given.user_data))
        self._starting = False
        self._notice("The chat has started; waiting for an agent.")

    def run(self, lines: PlainLines | PromptLines) -> int:
        """Send lines until one side ends the chat; return the exit code."""
        self._lines = lines
        if self._ended.is_set():  # the server ended the chat before there were lines to stop
            lines.stop()
        try:
            self._send_lines(lines)
        except KeyboardInterrupt:
            self._notice("Ending the chat; Ctrl-C again exits at once.")
        if self._leaving:
            self._leave()
        elif self._chat.can("endChat"):
            self._end()
        # A chat that an agent or the idle timer has ended is a success; one that broke off is not.
        return FAILED if self._lost else DONE

    def _send_lines(self, lines: PlainLines | PromptLines) -> None:
        while not self._ended.is_set() and (line := lines.read()) is not None:
            stripped = line.strip()  # a blank line is not sent: the server would reject it
            if stripped == QUIT:
                break
            if stripped == LEAVE:
                self._leaving = self._store is not None
                if self._leaving:
                    return
                self._warn("/leave needs --store, as the chat could not be restored without; /quit ends it")
            elif stripped:
                self._run_line(line)
        self._ended.wait(self._options.linger)

    def _run_line(self, line: str) -> None:
        try:
            if line.startswith("/") and not line.startswith("//"):  # `//` sends a text that begins with a slash
                for answer in run_command(self._chat, line):
                    self._notice(answer)
            else:
                self._send(line[1:] if line.startswith("//") else line)
        except CommandRejected as error:
            self._warn(f"{error.command} rejected: {rejection(error)}")
        except WebChatError as error:
            self._warn(str(error))

    def _send(self, text: str) -> None:
        self._expected_echoes[text] += self._echoes  # before the send: the message may come back before it returns
        try:
            self._chat.send_message(text)
        except CommandRejected:
            self._expected_echoes.pop(text, None)  # if it arrived all the same, the customer has to see that
            raise

    def _leave(self) -> None:
        self._chat.close()  # saves the session a last time; only then is it certain that the chat can be restored
        if failure := self._chat.health().store_failure:
            self._lost = True
            self._warn(f"The chat goes on at the server, but could not be saved: {printable(failure)}")
        else:
            self._notice("The chat goes on at the server; the same command restores it.")

    def _end(self) -> None:
        try:
            self._chat.end_chat()
        except CommandRejected as error:
            self._lost = True
            self._warn(f"endChat failed at the server: {rejection(error)}")

    def _on_event(self, event: ChatEvent[Any]) -> None:
        self._lost = CHAT_LOST.get(event.name, self._lost)
        self._restore_failed |= event.name == "restoreFailed"
        if event.name in ("agentTypingStarted", "agentTypingStopped"):
            message = event.data.message if event.name == "agentTypingStarted" else None
            self._typing = message.sender.name if message else ""
        if self._options.json:
            self._screen.put(text=as_json(event_record(event, self._chat.config.way)))
        elif not (event.name == "error" and self._starting):  # the error line of the program says it too
            restoring = isinstance(event.data, MessageReceived) and event.data.restoring
            for line in event_lines(event, hidden=lambda message: not restoring and self._is_echo(message)):
                self._print(line)
        if event.name == "ended":
            self.stop()

    def _is_echo(self, message: Message) -> bool:
        if message.type != "Message" or message.sender.type != "Client" or not self._expected_echoes[message.text]:
            return False
        self._expected_echoes[message.text] -= 1
        return True

    def _notice(self, text: str) -> None:
        if not self._options.json:
            self._print(ChatLine("notice", text))

    def _warn(self, text: str) -> None:
        if self._options.json:  # standard output holds events alone
            print_error(text)
        else:
            self._print(ChatLine("warning", text))

    def _print(self, line: ChatLine) -> None:
        if line.who:
            self._screen.put((line.style, f"{line.who}: "), text=line.text)
        else:
            self._screen.put((line.style, "* "), text=line.text, style=line.style)


# -- commands of the program ---------------------------------------------------------------------------------------

Lines = Iterator[str]


class SlashCommand(NamedTuple):
    """Describe a line that begins with a slash: usage, meaning, number of arguments, action."""

    usage: str
    meaning: str
    arguments: range = range(1)
    run: Callable[[WebChatService, list[str]], Lines] | None = None


def run_command(chat: WebChatService, line: str) -> Lines:
    """Run a line that begins with a slash, and yield the lines to print; raises `WebChatError` if it is invalid."""
    try:
        # Split as a shell does, so that the name of a file may contain spaces.
        name, *arguments = shlex.split(line)
    except ValueError as error:
        raise WebChatError(
            f"invalid quotes in {printable(line)}: {error}; close each quote, or write // for a text"
        ) from None
    command = COMMANDS.get(name)
    if command is None:
        raise WebChatError(f"unknown command {printable(name)}: /help lists the commands, // sends a slash")
    if len(arguments) not in command.arguments:
        raise WebChatError(f"wrong arguments for {name}: usage is {command.usage}")
    if command.run is not None:
        yield from command.run(chat, arguments)


def _send_files(chat: WebChatService, paths: list[str]) -> Lines:
    chat.send_file(paths)
    yield f"Sent: {', '.join(printable(path) for path in paths)}"


def _save(chat: WebChatService, arguments: list[str]) -> Lines:
    path = chat.download_file(arguments[0], to=arguments[1] if len(arguments) > 1 else None)
    yield f"Saved as {printable(path)}"


def _agents(chat: WebChatService, _: list[str]) -> Lines:
    agents = chat.get_agents().values()
    for agent in agents:
        yield f"{printable(agent.name)} ({agent.type.lower()}){'' if agent.connected else ', has left'}"
    if not agents:
        yield "No agent has joined yet."


def _history(chat: WebChatService, _: list[str]) -> Lines:
    chat.fetch_history()
    yield from ()


def _state(chat: WebChatService, _: list[str]) -> Lines:
    yield f"{chat.state}; legal commands: {', '.join(chat.legal_commands())}"


def _help(chat: WebChatService, _: list[str]) -> Lines:
    yield from (f"{command.usage:<24}{command.meaning}" for command in COMMANDS.values())
    yield f"{'//TEXT':<24}send a message that begins with a slash"


COMMANDS = {
    "/help": SlashCommand("/help", "list the commands", run=_help),
    "/agents": SlashCommand("/agents", "list the agents", run=_agents),
    "/file": SlashCommand("/file PATH [PATH ...]", "send files", range(1, 1000), _send_files),
    "/save": SlashCommand("/save ID [PATH]", "download a file; its id stands beside its name", range(1, 3), _save),
    "/history": SlashCommand("/history", "fetch older messages of an asynchronous chat", run=_history),
    "/state": SlashCommand("/state", "print the state of the chat and its legal commands", run=_state),
    # These two end the program: `Conversation` handles them where they stand alone on a line.
    QUIT: SlashCommand(QUIT, "end the chat; so do Ctrl-C and Ctrl-D"),
    LEAVE: SlashCommand(LEAVE, "exit without ending the chat; needs --store"),
}


# -- the input -----------------------------------------------------------------------------------------------------


class PlainLines:
    """Read lines of a file descriptor, such as a pipe; invalid UTF-8 is replaced."""

    def __init__(self, source: int) -> None:
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        # A thread reads, as a blocked read in the main thread could not be cancelled when the server ends the chat.
        threading.Thread(target=self._fill, args=(source,), name="webchat-fsm-input", daemon=True).start()

    def read(self) -> str | None:
        """Wait for the next line; return None at the end of the input and after `stop`."""
        while True:
            with suppress(Empty):
                return self._lines.get(timeout=WAIT)

    def stop(self) -> None:
        """Let `read` return None, after the lines that came before."""
        self._lines.put(None)

    def _fill(self, source: int) -> None:
        # A lost terminal or a closed descriptor ends the input like its end.
        # Not `sys.stdin`: Python aborts at exit if a daemon thread holds the lock of that stream.
        with suppress(OSError), open(source, encoding="utf-8", errors="replace", newline="\n", closefd=False) as lines:
            for line in lines:
                self._lines.put(line.rstrip("\r\n"))
        self._lines.put(None)


class PromptLines:
    """Read lines at a prompt of prompt_toolkit with a status line below; also an input for the typing preview."""

    type = "text"

    def __init__(self, nickname: str, status: Callable[[], str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.styles import Style

        self._stopped = False
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", f"{nickname}> ")],
            bottom_toolbar=lambda: [("class:bottom-toolbar", f" {status()} ")],
            completer=WordCompleter(list(COMMANDS), sentence=True),
            complete_while_typing=False,
            refresh_interval=WAIT,  # the status line changes with events, of which the prompt has no notice
            style=Style.from_dict({"prompt": "bold ansigreen", "bottom-toolbar": "noreverse ansibrightblack"}),
        )

    @property
    def value(self) -> str:
        """Return the unfinished line, or "" if it is a command of this program."""
        text = unicode(self._session.default_buffer.text)
        return "" if text.startswith("/") else text

    def read(self) -> str | None:
        """Wait for the next line; return None at Ctrl-D and after `stop`. Raises `KeyboardInterrupt` at Ctrl-C."""
        try:
            return unicode(self._session.prompt(pre_run=self._exit_if_stopped))
        except EOFError:
            return None
        except asyncio.CancelledError:  # asyncio raises this if Ctrl-C comes while the prompt is being set up
            raise KeyboardInterrupt from None

    def stop(self) -> None:
        """Let `read` return None, from any thread."""
        self._stopped = True
        loop = self._session.app.loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop of this prompt has closed; the next prompt checks before it runs
                loop.call_soon_threadsafe(self._exit_if_stopped)

    def _exit_if_stopped(self) -> None:
        app = self._session.app
        if self._stopped and app.is_running and not app.is_done:
            app.exit(exception=EOFError)
