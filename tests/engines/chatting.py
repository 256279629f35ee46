"""A child process: one whole chat under an engine, and the waits that must let others run. Ends with a JSON line."""

from __future__ import annotations

import sys
import warnings

warnings.simplefilter("ignore")  # eventlet says that it is old, gevent that ssl was there before it

from tests.engines.patching import patch  # noqa: E402

if __name__ == "__main__":
    patch(sys.argv[1])

import json  # noqa: E402
import socket  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

from tests.engines.talk import whole_chat  # noqa: E402
from webchat_fsm import CommandRejected, TransportError, WebChatService  # noqa: E402


def ticking(stop: threading.Event, ticks: list[float]) -> None:
    while not stop.is_set():
        ticks.append(time.monotonic())
        time.sleep(0.01)


def silent_server() -> str:
    """Take connections, and never answer on one."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken = []

    def accept() -> None:
        while True:
            taken.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/genesys/2/chat/x"


def late(url: str, ticks: list[float]) -> dict[str, object]:
    """A request that no answer comes to ends at its deadline, and others run meanwhile."""
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
    """close() cuts a request that waits in another thread."""
    chat = WebChatService({"dataURL": url, "ajaxTimeout": 30_000})
    chat.open()
    told: list[str] = []

    def start() -> None:
        try:
            chat.start_chat(nickname="Jonny")
        except CommandRejected as error:
            told.append(str(error.__cause__ or error))

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    time.sleep(0.1)  # no test waits for this: whether the request has begun or not, it ends
    began = time.monotonic()
    closed = chat.close(2.0)
    thread.join(5.0)
    return {"closed": closed, "told": told, "took": time.monotonic() - began}


def given_up(url: str, engine: str) -> dict[str, object]:
    """A timeout of gevent's around a command passes through, and the chat can be closed."""
    if not engine.startswith("gevent"):
        return {"passed": True, "closed": True}
    import gevent

    chat = WebChatService({"dataURL": url, "ajaxTimeout": 30_000})
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
    told = {
        "chat": whole_chat(config, "from a child"),
        "late": late(silent_server(), ticks),
        "cut": cut(silent_server()),
        "given up": given_up(silent_server(), sys.argv[1]),
    }
    stop.set()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
