"""Texts of servers come through the wire as a browser would show them, on every transport."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from tests.lifecycle.wires import wire
from webchat_fsm.lifecycle.table import Transport

WAYS = [Transport.V2, Transport.COMETD, Transport.V3, Transport.V3_ASYNC]
TEXT = "Grüße, 5 € ✓"


def recode(here, change):
    """Change every answer that a service gets."""
    carrier = here.stage.gateway if here.transport is Transport.COMETD else here.stage.http
    send = carrier.send
    carrier.send = lambda request: change(send(request))


def written(body, encoding, mark=b"", charset=""):
    text = json.dumps(json.loads(body), ensure_ascii=False) if body else ""
    headers = {"content-type": f"application/json; charset={charset}"} if charset else {}
    return mark + text.encode(encoding, "replace"), headers


CODED = {
    "a mark": ("utf-8", b"\xef\xbb\xbf", ""),
    "a mark against the charset": ("utf-8", b"\xef\xbb\xbf", "iso-8859-1"),
    "UTF-16 by its mark": ("utf-16-le", b"\xff\xfe", "utf-8"),
    "UTF-16 by its name": ("utf-16-le", b"", "UTF-16"),
    "UTF-8 by its name": ("utf-8", b"", "utf-8"),
    "UTF-8 without a name": ("utf-8", b"", ""),
    "an unknown name": ("utf-8", b"", "x-user-undefined"),
    "GB 18030 by the name of GB 2312": ("gb18030", b"", "gb2312"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("coded", CODED.values(), ids=CODED)
def test_a_whole_chat_is_read_in_any_encoding(way, coded):
    encoding, mark, charset = coded

    def change(answer):
        body, headers = written(answer.body, encoding, mark, charset)
        return replace(answer, body=body, headers=headers)

    with wire(way) as here:
        here.stage.client()
        recode(here, change)
        here.chat.open()
        here.chat.start_chat(nickname="Jonny")
        here.stage.advance(1)
        here.heard.take()
        here.deliver(here.envelope(here.event(1, TEXT)))
        assert here.heard.texts() == [TEXT]
        here.chat.close()
        here.stage.advance(1)
        here.chat.open()
        assert here.chat.state.has_session, "a restore is read so too"


@pytest.mark.parametrize("way", WAYS)
def test_latin_1_means_windows_1252(way):
    def change(answer):
        body, headers = written(answer.body, "cp1252", charset="ISO-8859-1")
        return replace(answer, body=body, headers=headers)

    with wire(way) as here:
        here.start()
        recode(here, change)
        here.deliver(here.envelope(here.event(1, "Grüße “5 €”")))
        assert here.heard.texts() == ["Grüße “5 €”"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb"half \ud83d", "half \ud83d"), (rb"\udc4d half", "\udc4d half"), (b"a\xffb", "a\ufffdb"),
        (b"\xed\xa0\xbd", "\ufffd\ufffd\ufffd"), (rb"whole \ud83d\udc4d", "whole 👍"),
    ],
)  # fmt: skip
def test_half_surrogates_are_kept_and_bad_bytes_replaced(way, raw, text):
    with wire(way) as here:
        here.start()
        recode(here, lambda answer: replace(answer, body=answer.body.replace(b"RAW", raw)))
        here.deliver(here.envelope(here.event(1, "before"), here.event(2, "RAW"), here.event(3, "after")))
        assert here.heard.texts() == ["before", text, "after"]
        assert "error" not in here.heard.names


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("raw", [b"NaN", b"-Infinity", b"1e999", b"8" * 5000, b"[" * 10_000 + b"]" * 10_000])
def test_a_value_beyond_all_bounds_costs_one_member(way, raw):
    with wire(way) as here:
        here.start()
        recode(here, lambda answer: replace(answer, body=answer.body.replace(b'"RAW"', raw)))
        odd = here.event(2, "odd", userData={"deep": "RAW"})
        here.deliver(here.envelope(here.event(1, "before"), odd, here.event(3, "after")))
        assert here.heard.texts() == ["before", "odd", "after"]
        assert len(here.chat.health().misread) == 1


def test_file_limits_are_read_behind_a_mark():
    with wire(Transport.V2) as here:
        here.start()
        said = {"upload-max-files": "3", "upload-file-types": "pdf"}
        body = json.dumps({"statusCode": 0, "messages": [{"type": "Notice", "userData": said}]}).encode()
        here.answer("limits", b"\xef\xbb\xbf" + body)
        assert here.chat.command("getFileLimits").value["messages"][0]["userData"] == said
