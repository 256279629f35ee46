"""Check the client against the CometD project's own server for Node, installed in a folder of the test.

It is fetched from npm when the tests run, so it is left out where Node or npm is missing or nothing can be fetched,
unless WEBCHAT_REQUIRE contains their names (`tests/needs.py`).
"""

from __future__ import annotations

import subprocess
import threading

import pytest

from tests.lifecycle.environment import Heard
from tests.limits import LONG, SOON, eventually
from tests.needs import lack
from webchat_fsm import WebChatService

SERVER = "cometd-nodejs-server@1.2.1"
SCRIPT = """
const cometd = require('cometd-nodejs-server').createCometDServer(
  {timeout: 800, maxInterval: 60000, sweepPeriod: 100, maxSessionsPerBrowser: -1});
const channel = cometd.createServerChannel('/service/chatV2/customer-support');
const keys = {chatId: 'c-1', secureKey: 'k-1', userId: 'u-1', alias: 'a-1'};
const transcript = [];
let torn = false, forgotten = false, requests = 0;
const add = (type, text) => {
  const from = {nickname: 'Jonny', participantId: 1, type: 'Client'};
  transcript.push({index: transcript.length + 1, type, text, utcTime: Date.now(), from});
  return transcript.slice(-1);
};
// a session is ended while it holds a connect: in the gap between two, the client would learn of it by a 402 alone
const end = session => session._scheduler ? session.disconnect() : setTimeout(end, 5, session);
const effects = {
  requestChat: () => add('ParticipantJoined', ''),
  sendMessage: data => add('Message', data.message),
  requestNotifications: data => transcript.slice(data.transcriptPosition - 1),
  customNotice: (data, session) => {
    if (data.message === 'kick') setTimeout(end, 30, session);
    if (data.message === 'forget') setTimeout(() => {
      cometd._removeServerSession(session, true);
      forgotten = true;
    }, 30);
    return [];
  },
};
channel.addListener('message', (session, _, message, done) => {
  const added = (effects[message.data.operation] || (() => []))(message.data, session);
  const answer = {statusCode: 0, ...keys, chatEnded: false, messages: added, nextPosition: transcript.length + 1};
  setTimeout(() => session.deliver(null, channel.name, answer), 20);
  done();
});
const open = new Set();
const serve = (request, response) => ++requests && torn ? request.socket.destroy() : cometd.handle(request, response);
const server = require('http').createServer(serve).listen(0, '127.0.0.1', () => console.log(server.address().port));
server.on('connection', socket => { open.add(socket); socket.on('close', () => open.delete(socket)); });
process.stdin.on('data', line => {
  const word = String(line).trim();
  if (word === 'requests') return console.log(requests);
  if (word === 'forgotten') return console.log(forgotten);
  torn = word === 'tear';
  if (torn) for (const socket of open) socket.destroy();
  console.log('done');
});
process.stdin.on('end', () => process.exit());
"""

pytestmark = [
    pytest.mark.needs("node", "npm"),
    pytest.mark.usefixtures("short_backoff"),
]


class NodeServer:
    """Controls the running server; `tear` and `mend` begin and end an outage."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process
        self.port = int(self._line())

    def _line(self) -> str:
        return self._process.stdout.readline().strip()

    def _ask(self, word: str) -> str:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._line()

    def tear(self) -> None:
        assert self._ask("tear") == "done"

    def mend(self) -> None:
        assert self._ask("mend") == "done"

    def requests(self) -> int:
        """Return the number of requests so far."""
        return int(self._ask("requests"))

    def forgotten(self) -> bool:
        """Return whether the server has removed the client."""
        return self._ask("forgotten") == "true"


def install(folder, *packages: str) -> None:
    """Put packages from npm into a folder, or skip or fail the test that needs them."""
    options = "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"
    command = ["npm", "install", "--prefix", str(folder), *options, *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    except subprocess.TimeoutExpired:
        lack("npm", f"npm did not install {packages} in time")
    if done.returncode:
        lack("npm", f"npm could not install {packages}: {done.stderr[-200:]}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Install the server; return its folder."""
    folder = tmp_path_factory.mktemp("bayeux")
    install(folder, SERVER)
    (folder / "chat.js").write_text(SCRIPT)
    return folder


@pytest.fixture
def server(folder):
    """Run the server on a free port; it ends when its standard input does."""
    process = subprocess.Popen(
        ["node", "chat.js"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    watch = threading.Timer(60.0, process.kill)
    watch.start()
    try:
        yield NodeServer(process)
    finally:
        process.stdin.close()
        try:
            process.wait(LONG)
        finally:
            watch.cancel()
            process.kill()
            process.wait(LONG)
            process.stdout.close()


@pytest.fixture
def chat(server):
    """Start a chat on the server."""
    url = f"http://127.0.0.1:{server.port}/genesys/cometd"
    chat = WebChatService({"cometD": {"enabled": True, "cometURL": url, "apiURL": url}})
    chat.heard = Heard(chat)
    chat.open()
    chat.start_chat(nickname="Jonny")
    yield chat
    assert chat.close(SOON)


def test_chat_from_start_to_end_publishes_in_order(server, chat):
    assert chat.state == "active"
    assert chat.get_session_data().secure_key == "k-1"
    assert chat.send_message("hi").wait(timeout=LONG)
    # The connect that is held is answered without advice and without events, and so is the next one.
    asked = server.requests()
    eventually(lambda: server.requests() >= asked + 2)
    assert chat.send_message("again").wait(timeout=LONG)
    chat.end_chat()
    assert chat.heard.texts() == ["hi", "again"]
    assert chat.heard.names[:3] == ["ready", "started", "clientConnected"]
    assert [name for name in chat.heard.names[3:] if name != "messageReceived"] == ["clientDisconnected", "ended"]


def test_disconnect_by_the_server_is_followed_by_reconnect(chat):
    chat.send_custom_notice("kick")
    eventually(lambda: "reconnected" in chat.heard.names)
    assert chat.send_message("after it").wait(timeout=LONG)
    assert chat.heard.names.count("disconnected") == chat.heard.names.count("reconnected") == 1


def test_unknown_client_is_renewed_without_lifecycle_events(server, chat):
    before = chat._engine.session.connection.client_id
    chat.send_custom_notice("forget")
    eventually(server.forgotten)
    assert chat.send_message("refused at first").wait(timeout=LONG)
    assert chat.send_message("and on").wait(timeout=LONG)
    assert chat.heard.texts() == ["refused at first", "and on"]
    assert set(chat.heard.names) == {"ready", "started", "clientConnected", "messageReceived"}
    assert chat._engine.session.connection.client_id != before


def test_outage_is_published_and_ends(server, chat):
    server.tear()
    eventually(lambda: "disconnected" in chat.heard.names)
    outcome = chat.command("sendMessage", {"message": "sent in the outage"})
    assert outcome.status == "rejected"
    server.mend()
    eventually(lambda: "reconnected" in chat.heard.names)
    assert chat.send_message("back").wait(timeout=LONG)
    eventually(lambda: "back" in chat.heard.texts())
    assert "sent in the outage" not in chat.heard.texts()
    assert chat.state == "active"
