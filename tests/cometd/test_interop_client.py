"""Check the embedded server with the CometD project's own client for Node, over a websocket and by long polling."""

from __future__ import annotations

import subprocess
import threading

import pytest

from tests.cometd.test_interop import install, pytestmark
from tests.limits import LONG, eventually
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront

__all__ = ["pytestmark"]

CLIENT = ["cometd@9.0.0", "cometd-nodejs-client@2.0.0"]
SCRIPT = """
import {adapt} from 'cometd-nodejs-client';
import {CometD} from 'cometd';
adapt();
const [url, unwanted] = process.argv.slice(2);
const cometd = new CometD();
cometd.unregisterTransport(unwanted);
cometd.configure({url, logLevel: 'warn', maxNetworkDelay: 5000});
const channel = '/service/chatV2/customer-support';
let keys = {}, position = 1;
const operate = (operation, more) => cometd.publish(channel, {operation, ...keys, ...more},
  reply => console.log('acknowledged', operation, reply.successful));
cometd.addListener(channel, message => {
  const {secureKey, alias, userId, chatId, messages} = message.data;
  keys = {secureKey, alias, userId, chatId};
  for (const one of messages.filter(each => each.index >= position)) {
    position = one.index + 1;
    console.log('received', one.type, one.text || '');
  }
});
cometd.addListener('/meta/handshake', reply => {
  console.log('handshake', reply.successful, cometd.getTransport().type);
  if (keys.secureKey) operate('requestNotifications', {transcriptPosition: position, message: ''});
  else operate('requestChat', {nickname: 'Jonny'});
});
process.stdin.on('data', text => {
  const word = String(text).trim();
  if (word === 'bye') cometd.disconnect(() => console.log('bye'));
  else operate('sendMessage', {message: word, messageType: 'text'});
});
process.stdin.on('end', () => process.exit());
cometd.handshake();
"""


class NodeClient:
    """Runs the client: reads the lines that it prints and sends it words."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self.lines.append(line.strip())

    def say(self, word: str) -> None:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def received(self) -> list[str]:
        return [line.removeprefix("received ") for line in self.lines if line.startswith("received ")]

    def end(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(LONG)
        finally:
            self._process.kill()
            self._process.wait(LONG)
            self._reading.join(LONG)
            self._process.stdout.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Install the client; return its folder."""
    folder = tmp_path_factory.mktemp("bayeux-client")
    install(folder, *CLIENT)
    (folder / "chat.mjs").write_text(SCRIPT)
    return folder


@pytest.fixture
def front():
    with HttpFront(ChatServer(ServerOptions(connect_timeout=2.0))) as front:
        yield front


@pytest.fixture(params=["websocket", "long-polling"])
def client(request, folder, front):
    """Start a chat with the client, over one transport only."""
    unwanted = {"websocket": "long-polling", "long-polling": "websocket"}[request.param]
    command = ["node", "chat.mjs", front.comet_url, unwanted]
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    client = NodeClient(process)
    try:
        eventually(lambda: "received ParticipantJoined" in client.lines)
        assert client.lines[0] == f"handshake true {request.param}"
        yield client
    finally:
        client.end()


def test_node_client_chats_from_start_to_end(front, client):
    ann = front.server.agent("Ann").join()
    ann.say("Hello")
    eventually(lambda: "received Message Hello" in client.lines)
    client.say("hi")
    eventually(lambda: "received Message hi" in client.lines)
    assert "acknowledged sendMessage true" in client.lines
    client.say("bye")
    eventually(lambda: "bye" in client.lines)
    assert not front.server._comet.bayeux.clients


def test_lost_connection_and_unknown_client_lose_no_message(front, client):
    ann = front.server.agent("Ann").join()
    front.server.cut_connects()
    ann.say("meanwhile")
    eventually(lambda: "received Message meanwhile" in client.lines)
    front.server.forget_clients()
    ann.say("and then")
    eventually(lambda: "received Message and then" in client.lines)
    assert client.received() == ["ParticipantJoined", "ParticipantJoined", "Message meanwhile", "Message and then"]
