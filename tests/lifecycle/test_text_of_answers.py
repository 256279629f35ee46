"""Check that responses are decoded as in a browser, on every transport."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from tests.lifecycle.wires import wire
from webchat_fsm.lifecycle._transports import Transport

TRANSPORTS = [Transport.V2, Transport.COMETD, Transport.V3, Transport.V3_ASYNC]
TEXT = "Grüße, 5 € ✓"


def recode(bench, change):
    """Change every response that a service receives."""
    http_for = bench.env.gateway if bench.transport is Transport.COMETD else bench.env.http
    send = http_for.send
    http_for.send = lambda request: change(send(request))


def encoded(body, encoding, mark=b"", charset=""):
    text = json.dumps(json.loads(body), ensure_ascii=False) if body else ""
    headers = {"content-type": f"application/json; charset={charset}"} if charset else {}
    return mark + text.encode(encoding, "replace"), headers


ENCODINGS = {
    "a byte order mark": ("utf-8", b"\xef\xbb\xbf", ""),
    "a byte order mark against the charset": ("utf-8", b"\xef\xbb\xbf", "iso-8859-1"),
    "UTF-16 by its byte order mark": ("utf-16-le", b"\xff\xfe", "utf-8"),
    "UTF-16 by its charset": ("utf-16-le", b"", "UTF-16"),
    "UTF-8 by its charset": ("utf-8", b"", "utf-8"),
    "UTF-8 without a charset": ("utf-8", b"", ""),
    "an unknown charset": ("utf-8", b"", "x-user-undefined"),
    "GB 18030 by the charset GB 2312": ("gb18030", b"", "gb2312"),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("coded", ENCODINGS.values(), ids=ENCODINGS)
def test_chat_is_read_in_any_encoding(transport, coded):
    encoding, mark, charset = coded

    def change(answer):
        body, headers = encoded(answer.body, encoding, mark, charset)
        return replace(answer, body=body, headers=headers)

    with wire(transport) as bench:
        bench.env.client()
        recode(bench, change)
        bench.chat.open()
        bench.chat.start_chat(nickname="Jonny")
        bench.env.advance(1)
        bench.heard.take()
        bench.deliver(bench.envelope(bench.event(1, TEXT)))
        assert bench.heard.texts() == [TEXT]
        bench.chat.close()
        bench.env.advance(1)
        bench.chat.open()
        assert bench.chat.state.has_session, "a restore must be decoded too"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_latin_1_is_decoded_as_windows_1252(transport):
    def change(answer):
        body, headers = encoded(answer.body, "cp1252", charset="ISO-8859-1")
        return replace(answer, body=body, headers=headers)

    with wire(transport) as bench:
        bench.start()
        recode(bench, change)
        bench.deliver(bench.envelope(bench.event(1, "Grüße “5 €”")))
        assert bench.heard.texts() == ["Grüße “5 €”"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb"half \ud83d", "half \ud83d"), (rb"\udc4d half", "\udc4d half"), (b"a\xffb", "a\ufffdb"),
        (b"\xed\xa0\xbd", "\ufffd\ufffd\ufffd"), (rb"whole \ud83d\udc4d", "whole 👍"),
    ],
)  # fmt: skip
def test_lone_surrogates_are_kept_and_bad_bytes_replaced(transport, raw, text):
    with wire(transport) as bench:
        bench.start()
        recode(bench, lambda answer: replace(answer, body=answer.body.replace(b"RAW", raw)))
        bench.deliver(bench.envelope(bench.event(1, "before"), bench.event(2, "RAW"), bench.event(3, "after")))
        assert bench.heard.texts() == ["before", text, "after"]
        assert "error" not in bench.heard.names


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("raw", [b"NaN", b"-Infinity", b"1e999", b"8" * 5000, b"[" * 10_000 + b"]" * 10_000])
def test_value_beyond_the_limits_loses_only_its_member(transport, raw):
    with wire(transport) as bench:
        bench.start()
        recode(bench, lambda answer: replace(answer, body=answer.body.replace(b'"RAW"', raw)))
        odd = bench.event(2, "odd", userData={"deep": "RAW"})
        bench.deliver(bench.envelope(bench.event(1, "before"), odd, bench.event(3, "after")))
        assert bench.heard.texts() == ["before", "odd", "after"]
        assert len(bench.chat.health().misread) == 1


def test_file_limits_after_a_byte_order_mark_are_read():
    with wire(Transport.V2) as bench:
        bench.start()
        limits = {"upload-max-files": "3", "upload-file-types": "pdf"}
        body = json.dumps({"statusCode": 0, "messages": [{"type": "Notice", "userData": limits}]}).encode()
        bench.answer("limits", b"\xef\xbb\xbf" + body)
        assert bench.chat.command("getFileLimits").value["messages"][0]["userData"] == limits
