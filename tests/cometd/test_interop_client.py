"""The embedded server, spoken to by the CometD project's own client for Node, over a websocket and by long polling."""

from __future__ import annotations

import subprocess
import threading

import pytest

from tests.cometd.test_interop import install, pytestmark
from tests.cometd.test_threads import until
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
  reply => console.log('took', operation, reply.successful));
cometd.addListener(channel, message => {
  const {secureKey, alias, userId, chatId, messages} = message.data;
  keys = {secureKey, alias, userId, chatId};
  for (const one of messages.filter(each => each.index >= position)) {
    position = one.index + 1;
    console.log('heard', one.type, one.text || '');
  }
});
cometd.addListener('/meta/handshake', reply => {
  console.log('shook', reply.successful, cometd.getTransport().type);
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
    """The running client: what it prints, and words for it to send."""

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

    def heard(self) -> list[str]:
        return [line.removeprefix("heard ") for line in self.lines if line.startswith("heard ")]

    def end(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(5.0)
        finally:
            self._process.kill()
            self._process.wait(5.0)
            self._reading.join(5.0)
            self._process.stdout.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the client is installed."""
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
    """The client in a chat, held to one way."""
    unwanted = {"websocket": "long-polling", "long-polling": "websocket"}[request.param]
    command = ["node", "chat.mjs", front.comet_url, unwanted]
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    client = NodeClient(process)
    try:
        until(lambda: "heard ParticipantJoined" in client.lines)
        assert client.lines[0] == f"shook true {request.param}"
        yield client
    finally:
        client.end()


def test_a_chat_from_start_to_end(front, client):
    ann = front.server.agent("Ann").join()
    ann.say("Hello")
    until(lambda: "heard Message Hello" in client.lines)
    client.say("hi")
    until(lambda: "heard Message hi" in client.lines)
    assert "took sendMessage true" in client.lines
    client.say("bye")
    until(lambda: "bye" in client.lines)
    assert not front.server._comet.bayeux.clients


def test_a_lost_connection_and_a_forgotten_client_lose_nothing(front, client):
    ann = front.server.agent("Ann").join()
    front.server.cut_connects()
    ann.say("meanwhile")
    until(lambda: "heard Message meanwhile" in client.lines)
    front.server.forget_clients()
    ann.say("and then")
    until(lambda: "heard Message and then" in client.lines)
    assert client.heard() == ["ParticipantJoined", "ParticipantJoined", "Message meanwhile", "Message and then"]
