"""Against a Bayeux server that others wrote: the CometD project's own for Node, in a folder of the test's own.

It is fetched from npm when the tests run, so it is left out where Node or npm is missing or nothing can be fetched,
unless WEBCHAT_REQUIRE contains their names (`tests/needs.py`).
"""

from __future__ import annotations

import subprocess
import threading
import time

import pytest

from tests.cometd.test_threads import until
from tests.lifecycle.stage import Heard
from tests.needs import lack
from webchat_fsm import WebChatService

SERVER = "cometd-nodejs-server@1.2.1"
SCRIPT = """
const cometd = require('cometd-nodejs-server').createCometDServer(
  {timeout: 2000, maxInterval: 3000, sweepPeriod: 100, maxSessionsPerBrowser: -1});
const channel = cometd.createServerChannel('/service/chatV2/customer-support');
const keys = {chatId: 'c-1', secureKey: 'k-1', userId: 'u-1', alias: 'a-1'};
const transcript = [];
let torn = false;
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
    if (data.message === 'forget') setTimeout(() => cometd._removeServerSession(session, true), 30);
    return [];
  },
};
channel.addListener('message', (session, _, message, done) => {
  const news = (effects[message.data.operation] || (() => []))(message.data, session);
  const answer = {statusCode: 0, ...keys, chatEnded: false, messages: news, nextPosition: transcript.length + 1};
  setTimeout(() => session.deliver(null, channel.name, answer), 20);
  done();
});
const open = new Set();
const serve = (request, response) => torn ? request.socket.destroy() : cometd.handle(request, response);
const server = require('http').createServer(serve).listen(0, '127.0.0.1', () => console.log(server.address().port));
server.on('connection', socket => { open.add(socket); socket.on('close', () => open.delete(socket)); });
process.stdin.on('data', line => {
  torn = String(line).trim() === 'tear';
  if (torn) for (const socket of open) socket.destroy();
  console.log('done');
});
process.stdin.on('end', () => process.exit());
"""

pytestmark = [
    pytest.mark.needs("node", "npm"),
    pytest.mark.timeout(120),
]


class NodeServer:
    """The running server; `tear` and `mend` begin and end an outage."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process
        self.port = int(self._line())

    def _line(self) -> str:
        return self._process.stdout.readline().strip()

    def _tell(self, word: str) -> None:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        assert self._line() == "done"

    def tear(self) -> None:
        self._tell("tear")

    def mend(self) -> None:
        self._tell("mend")


def install(folder, *packages: str) -> None:
    """Put packages from npm into a folder, or skip or fail what needs them."""
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        lack("npm", f"npm did not install {packages} in time")
    if done.returncode:
        lack("npm", f"npm could not install {packages}: {done.stderr[-200:]}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the server is installed."""
    folder = tmp_path_factory.mktemp("bayeux")
    install(folder, SERVER)
    (folder / "chat.js").write_text(SCRIPT)
    return folder


@pytest.fixture
def server(folder):
    """The server on a free port; it ends when its standard input does."""
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
            process.wait(5.0)
        finally:
            watch.cancel()
            process.kill()
            process.wait(5.0)
            process.stdout.close()


@pytest.fixture
def chat(server):
    """A started chat on it."""
    url = f"http://127.0.0.1:{server.port}/genesys/cometd"
    chat = WebChatService({"cometD": {"enabled": True, "cometURL": url, "apiURL": url}})
    chat.heard = Heard(chat)
    chat.open()
    chat.start_chat(nickname="Jonny")
    yield chat
    assert chat.close()


def test_a_chat_from_start_to_end(chat):
    assert chat.state == "active"
    assert chat.get_session_data().secure_key == "k-1"
    assert chat.send_message("hi").wait(timeout=5.0)
    time.sleep(2.5)  # longer than the server holds a connect: an answer without advice and without news
    assert chat.send_message("again").wait(timeout=5.0)
    chat.end_chat()
    assert chat.heard.texts() == ["hi", "again"]
    assert chat.heard.names[:3] == ["ready", "started", "clientConnected"]
    assert [name for name in chat.heard.names[3:] if name != "messageReceived"] == ["clientDisconnected", "ended"]


def test_a_server_that_hangs_up_is_called_again(chat):
    chat.send_custom_notice("kick")
    until(lambda: "reconnected" in chat.heard.names)
    assert chat.send_message("after it").wait(timeout=20.0)
    assert chat.heard.names.count("disconnected") == chat.heard.names.count("reconnected") == 1


def test_a_server_that_has_forgotten_the_client_is_greeted_anew_without_a_word(chat):
    before = chat._engine.session.link.client_id
    chat.send_custom_notice("forget")
    time.sleep(0.2)
    assert chat.send_message("not taken at first").wait(timeout=5.0)
    assert chat.send_message("and on").wait(timeout=5.0)
    assert chat.heard.texts() == ["not taken at first", "and on"]
    assert set(chat.heard.names) == {"ready", "started", "clientConnected", "messageReceived"}
    assert chat._engine.session.link.client_id != before


def test_an_outage_is_told_and_ends(server, chat):
    server.tear()
    until(lambda: "disconnected" in chat.heard.names)
    outcome = chat.command("sendMessage", {"message": "into the void"})
    assert outcome.status == "rejected"
    server.mend()
    until(lambda: "reconnected" in chat.heard.names)
    assert chat.send_message("back").wait(timeout=20.0)
    until(lambda: "back" in chat.heard.texts())
    assert "into the void" not in chat.heard.texts()
    assert chat.state == "active"
