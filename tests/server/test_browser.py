"""Check a page in a real browser, served from another port, that chats with the embedded server."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.limits import LONG
from tests.needs import find
from webchat_fsm.server import ChatServer
from webchat_fsm.server.front import HttpFront

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=20000", "--dump-dom",
)  # fmt: skip
PAGE = """<!doctype html><meta charset="utf-8"><pre id="out"></pre><script>
const form = fields => new URLSearchParams(fields).toString();
const post = async (url, fields, headers = {}) => (await fetch(url, {
  method: 'POST', credentials: 'include', body: form(fields),
  headers: {'Content-Type': 'application/x-www-form-urlencoded', ...headers}})).json();
async function v2(base) {
  const asked = {nickname: 'Jonny', 'userData[tier]': 'gold', alias: '', secureKey: ''};
  const started = await post(base + '/', asked, {apikey: 'k'});
  const keys = {alias: started.alias, secureKey: started.secureKey, userId: started.userId};
  const chat = base + '/' + started.chatId;
  await post(chat + '/send', {...keys, message: 'häßlich & 1+1=2'});
  const file = new FormData();
  for (const key in keys) file.append(key, keys[key]);
  file.append('file', new Blob(['hello']), 'a.txt');
  await fetch(chat + '/file', {method: 'POST', body: file});
  const seen = await post(chat + '/refresh', {...keys, transcriptPosition: 1, message: ''});
  const left = await post(chat + '/disconnect', keys);
  return {kinds: seen.messages.map(m => m.type), text: seen.messages[1].text, ended: left.chatEnded};
}
async function v3(base) {
  const asked = {operationId: '1', 'data[nickname]': 'Jonny', 'data[endpoint]': 'e'};
  const started = await post(base, asked, {'x-api-key': 'k'});
  const headers = {'x-api-key': 'k', 'x-nexus-client-key': started.data.clientToken};
  const chat = base + '/' + started.data.entity.id;
  await post(chat + '/messages', {'data[type]': 'Text', 'data[text]': 'hi'}, headers);
  const seen = await (await fetch(chat + '/messages', {headers, credentials: 'include'})).json();
  return seen.data.messages.map(m => m.type);
}
(async () => {
  let out;
  try { out = {v2: await v2(V2), v3: await v3(V3)}; } catch (error) { out = {error: String(error)}; }
  document.getElementById('out').textContent = 'RESULT' + JSON.stringify(out) + 'END';
})();
</script>"""


class QuietFiles(SimpleHTTPRequestHandler):
    """Serves the page and writes no log."""

    def log_message(self, *given):
        pass


@pytest.fixture
def page(tmp_path):
    """Serve a page from a port of its own; yield its folder and its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietFiles, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}/page.html"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.needs("chromium")
def test_cross_origin_page_chats_over_v2_and_v3(page, tmp_path):
    folder, address = page
    with HttpFront(ChatServer()) as front:
        urls = f"<script>const V2 = {front.data_url('web')!r}, V3 = {front.sessions_url!r};</script>"
        (folder / "page.html").write_text(urls + PAGE, encoding="utf-8")
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        run = subprocess.run([find("chromium"), *FLAGS, profile, address], capture_output=True, text=True, timeout=LONG)
    found = re.search("RESULT(.*)END</pre>", run.stdout)
    assert found, run.stdout + run.stderr
    said = json.loads(found[1].replace("&amp;", "&"))
    assert said == {
        "v2": {"kinds": ["ParticipantJoined", "Message", "FileUploaded"], "text": "häßlich & 1+1=2", "ended": True},
        "v3": ["ParticipantJoined", "Text"],
    }
