"""Child process: holds one chat under an engine and measures waits that must let other threads run.

Prints the results as one line of JSON.
"""

from __future__ import annotations

import sys
import warnings

warnings.simplefilter("ignore")  # eventlet warns of its deprecation, gevent of an ssl imported before it

from tests.engines.patching import patch  # noqa: E402

if __name__ == "__main__":
    patch(sys.argv[1])  # before the imports below, which would otherwise bind the unpatched threads and sockets

import json  # noqa: E402
import socket  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

from tests.engines.talk import whole_chat  # noqa: E402
from tests.limits import LONG, SOON  # noqa: E402
from webchat_fsm import CommandRejected, TransportError, WebChatService  # noqa: E402


def ticking(stop: threading.Event, ticks: list[float]) -> None:
    while not stop.is_set():
        ticks.append(time.monotonic())
        time.sleep(0.01)


def silent_server() -> str:
    """Start a server that accepts connections and sends no response; return its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted = []  # a reference keeps each connection open

    def accept() -> None:
        while True:
            accepted.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/genesys/2/chat/x"


def late(url: str, ticks: list[float]) -> dict[str, object]:
    """Send a request that gets no response: it ends at its deadline, and the ticking thread runs meanwhile."""
    chat = WebChatService({"dataURL": url, "ajaxTimeout": 500})
    chat.open()
    before, began = len(ticks), time.monotonic()
    try:
        chat.start_chat(nickname="Jonny")
    except (CommandRejected, TransportError) as error:
        why = str(error.__cause__ or error)
    took = time.monotonic() - began
    return {"why": why, "took": took, "others": len(ticks) - before, "closed": chat.close()}


def cut(url: str) -> dict[str, object]:
    """Close the service while a request waits in another thread: `close` cuts it."""
    chat = WebChatService({"dataURL": url, "ajaxTimeout": 600_000})
    chat.open()
    rejected: list[str] = []

    def start() -> None:
        try:
            chat.start_chat(nickname="Jonny")
        except CommandRejected as error:
            rejected.append(str(error.__cause__ or error))

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    time.sleep(0.1)  # lets the request begin; the result is the same if it has not
    began = time.monotonic()
    closed = chat.close(SOON)
    thread.join(LONG)
    return {"closed": closed, "rejected": rejected, "took": time.monotonic() - began}


def given_up(url: str, engine: str) -> dict[str, object]:
    """Run a command inside `gevent.Timeout`: the timeout reaches the caller, and the service can be closed."""
    if not engine.startswith("gevent"):
        return {"passed": True, "closed": True}
    import gevent

    chat = WebChatService({"dataURL": url, "ajaxTimeout": 600_000})
    chat.open()
    passed = False
    try:
        with gevent.Timeout(0.2):
            chat.start_chat(nickname="Jonny")
    except gevent.Timeout:
        passed = chat.state == "idle"
    return {"passed": passed, "closed": chat.close()}


def main() -> None:
    config = json.loads(sys.argv[2])
    stop, ticks = threading.Event(), []
    threading.Thread(target=ticking, args=(stop, ticks), daemon=True).start()
    results = {
        "chat": whole_chat(config, "from a child"),
        "late": late(silent_server(), ticks),
        "cut": cut(silent_server()),
        "given up": given_up(silent_server(), sys.argv[1]),
    }
    stop.set()
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
