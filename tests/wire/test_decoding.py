"""Check that bytes are decoded as in a browser, and that no number, nesting or surrogate makes a body unreadable."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.limits import examples
from tests.wire.test_gms_v2 import BASE, call, dialect
from webchat_fsm._bayeux.matcher import FrameError, messages
from webchat_fsm._core.steps import ResponseKind
from webchat_fsm._wire.decoding import (
    MOST_DEEP,
    NO_NUMBER,
    TOO_DEEP,
    Document,
    elements,
    encoding_of,
    object_in,
    read_body,
    text_of,
)
from webchat_fsm._wire.request import HttpAnswer


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        ("Grüße €".encode(), "", "Grüße €"), ("Grüße €".encode(), "utf-8", "Grüße €"), ("ü".encode(), "UTF8", "ü"),
        (b"\xef\xbb\xbfa", "", "a"), (b"\xef\xbb\xbf\xc3\xbc", "iso-8859-1", "ü"), (b"\xef\xbb\xbf", "", ""),
        (b"\xff\xfea\x00", "utf-8", "a"), (b"\xfe\xff\x00a", "", "a"), ("aü".encode("utf-16-le"), "utf-16", "aü"),
        ("aü".encode("utf-16-be"), "utf-16be", "aü"), (b"\xfc\x80\x93", "iso-8859-1", "ü€“"),
        (b"\x80", "us-ascii", "€"),
        (b"\x81\x9d", "latin1", "\x81\x9d"), (b"\xfc", "windows-1252", "ü"), (b"\xfe", "iso-8859-9", "ş"),
        ("ж".encode("cp1251"), "windows-1251", "ж"), ("ж".encode("cp1251"), "x-cp1251", "ж"),
        ("ж".encode("koi8-r"), "koi8-r", "ж"),
        ("汉€".encode("gb18030"), "gb2312", "汉€"), ("日①".encode("cp932"), "shift_jis", "日①"),
        ("日".encode("cp932"), "x-sjis", "日"),
        ("漢".encode("big5"), "big5", "漢"), ("한".encode("cp949"), "ks_c_5601-1987", "한"),
        ("日".encode("euc_jp"), "euc-jp", "日"),
        (b"a\xffb\xe2\x82", "", "a\ufffdb\ufffd"), (b"\xed\xa0\xbd", "", "\ufffd\ufffd\ufffd"),
        (b"a", "no-such-charset", "a"),
        ("ü".encode(), "rot13", "ü"), ("ü".encode(), "unicode_escape", "ü"), ("ü".encode(), "utf-7", "ü"),
        ("ü".encode(), "idna", "ü"),
    ],
)  # fmt: skip
def test_bytes_are_decoded_as_in_a_browser(body, charset, text):
    for spelling in (f"application/json;charset={charset}", f'text/plain; x=y; Charset = "{charset.upper()}"; a=b'):
        assert text_of(body, spelling if charset else "application/json") == text


LABELS = {
    "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8",
    "cp866": "866 cp866 csibm866 ibm866",
    "iso8859-2": "csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2",
    "iso8859-3": "csisolatin3 iso-8859-3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3",
    "iso8859-4": "csisolatin4 iso-8859-4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4",
    "iso8859-5": "csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988",
    "iso8859-6": (
        "arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6 iso-8859-6-e "
        "iso-8859-6-i iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987"
    ),
    "iso8859-7": (
        "csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso8859-7 iso88597 iso_8859-7 "
        "iso_8859-7:1987 sun_eu_greek"
    ),
    "iso8859-8": (
        "csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138 iso8859-8 iso88598 iso_8859-8 "
        "iso_8859-8:1988 visual csiso88598i iso-8859-8-i logical"
    ),
    "iso8859-10": "csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 iso885910 l6 latin6",
    "iso8859-13": "iso-8859-13 iso8859-13 iso885913",
    "iso8859-14": "iso-8859-14 iso8859-14 iso885914",
    "iso8859-15": "csisolatin9 iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9",
    "iso8859-16": "iso-8859-16",
    "koi8-r": "cskoi8r koi koi8 koi8-r koi8_r",
    "koi8-u": "koi8-ru koi8-u",
    "mac-roman": "csmacintosh mac macintosh x-mac-roman",
    "cp874": "dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874",
    "cp1250": "cp1250 windows-1250 x-cp1250",
    "cp1251": "cp1251 windows-1251 x-cp1251",
    "cp1252": (
        "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 "
        "iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252"
    ),
    "cp1253": "cp1253 windows-1253 x-cp1253",
    "cp1254": (
        "cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5 latin5 "
        "windows-1254 x-cp1254"
    ),
    "cp1255": "cp1255 windows-1255 x-cp1255",
    "cp1256": "cp1256 windows-1256 x-cp1256",
    "cp1257": "cp1257 windows-1257 x-cp1257",
    "cp1258": "cp1258 windows-1258 x-cp1258",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "gb18030": "chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk gb18030",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "euc_jp": "cseucpkdfmtjapanese euc-jp x-euc-jp",
    "iso2022_jp": "csiso2022jp iso-2022-jp",
    "cp932": "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis",
    "cp949": (
        "cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 windows-949"
    ),
    "utf-16-be": "unicodefffe utf-16be",
    "utf-16-le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le",
}
"""All labels of the WHATWG Encoding Standard by codec, without those of encodings that browsers reject."""


@pytest.mark.parametrize("codec", LABELS)
def test_browser_label_names_its_encoding(codec):
    found = {label: encoding_of(f"text/plain; charset={label}") for label in LABELS[codec].split()}
    assert found == dict.fromkeys(found, codec)


@pytest.mark.parametrize(
    "content_type", ["", "charset=", ";charset=", "a;charset=\x00", "a;charset=" + "x" * 9000, "a;charset=.."]
)
def test_unknown_charset_is_read_as_utf_8(content_type):
    assert encoding_of(content_type) == "utf-8"


INVALID = {
    "a high surrogate alone": (rb'{"a": "half \ud83d", "b": 1}', {"a": "half \ud83d", "b": 1}, ()),
    "a low surrogate alone": (rb'{"a": "\udc4d", "b": 1}', {"a": "\udc4d", "b": 1}, ()),
    "a pair and a lone surrogate": (rb'{"a": "\ud83d\udc4d \ud83d", "b": 1}', {"a": "👍 \ud83d", "b": 1}, ()),
    "NaN": (b'{"a": NaN, "b": 1}', {"a": None, "b": 1}, (NO_NUMBER,)),
    "Infinity": (b'{"a": [-Infinity, Infinity], "b": 1}', {"a": [None, None], "b": 1}, (NO_NUMBER,)),
    "1e999": (b'{"a": 1e999, "b": 1.5}', {"a": None, "b": 1.5}, (NO_NUMBER,)),
    "5,000 digits": (b'{"a": -%s, "b": 1}' % (b"7" * 5000), {"a": None, "b": 1}, (NO_NUMBER,)),
    "a line break in a text": (b'{"a": "x\ny\x00", "b": 1}', {"a": "x\ny\x00", "b": 1}, ()),
    "bytes that are no UTF-8": (b'{"a": "\xff", "b": 1}', {"a": "\ufffd", "b": 1}, ()),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_json_value_loses_only_itself(name):
    body, value, misread = INVALID[name]
    assert read_body(body) == Document(value, "", misread)


@pytest.mark.parametrize(
    ("opening", "closing"),
    [("[", "]"), ('{"x":', "}"), ('[{"x":', "}]"), ('["]",', "]"), (r'["\"]",', "]"), ("[[],", "]")],
)
@pytest.mark.parametrize("count", [MOST_DEEP + 1, 900, 10_000])
def test_nesting_beyond_the_limit_loses_only_deeper_values(opening, closing, count):
    deep = opening * count + "0" + closing * count
    document = read_body(b'{"before": 1, "deep": %s, "after": [2]}' % deep.encode())
    assert (document.value["before"], document.value["after"], document.misread) == (1, [2], (TOO_DEEP,))
    depth, found = 0, document.value
    while isinstance(found, dict | list) and found:
        found = found.get("deep", found.get("x")) if isinstance(found, dict) else found[-1]
        depth += 1
    assert (depth, found) == (MOST_DEEP, None)


def test_nesting_within_the_limit_is_read_whole():
    inner = MOST_DEEP - 1
    assert read_body(b'{"a": ' + b"[" * inner + b'"]]]"' + b"]" * inner + b"}").misread == ()
    wide = json.dumps([[{"a": "["}]] * 500).encode()
    assert read_body(wide) == Document(json.loads(wide))


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"a": ', b"[" * 100_000, b'{"a": "', b'{"a": "\\', b"<html>", b"\xff\xfe\x00"]
)
def test_body_without_json_is_reported_as_a_fault(body):
    document = read_body(body)
    assert isinstance(document.value, str)
    assert document.fault.startswith("no JSON (")


@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 500_000, b'{"a":' * 100_000, b'"\\' * 250_000, b'["' + b'\\"' * 250_000,
        b"[" + b"1e999," * 50_000 + b"1]",
        b"[" + b"[]," * 75_000 + b"NaN]", b"7" * 500_000,
    ],
    ids=["arrays", "objects", "unclosed texts", "an unclosed text", "numbers", "small arrays", "a number"],
)  # fmt: skip
def test_hostile_body_is_read_in_linear_time(hostile):
    """Read each body within about a second; in quadratic time it would take many minutes."""
    assert isinstance(read_body(hostile), Document)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))  # fmt: skip  # noqa: E501
@settings(max_examples=examples(100), deadline=None)
def test_json_is_read_alike_with_and_without_a_bom(value):
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert read_body(b"\xef\xbb\xbf" + body) == read_body(body) == Document(value)


@given(
    st.binary(max_size=60),
    st.sampled_from(["", "a;charset=utf-16", "a;charset=gbk", "a;charset=latin1", "a;charset=euc-kr"]),
)
@settings(max_examples=examples(150), deadline=None)
def test_any_bytes_are_read_without_an_exception(body, content_type):
    document = read_body(body, content_type)
    assert document.fault or not isinstance(document.value, bytes)


@given(
    st.lists(
        st.recursive(st.none() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
        max_size=5,
    )
)
@settings(max_examples=examples(100), deadline=None)
def test_array_is_split_into_its_elements(values):
    assert [json.loads(one) for one in elements(json.dumps(values))] == values


def test_json_text_in_a_member_keeps_a_lone_surrogate():
    assert object_in('{"a": "\ud83d"}') == {"a": "\ud83d"}
    assert [object_in(odd) for odd in (None, 5, "", "{", "[1]", '"{"', {"a": 1})] == [None] * 7


# -- in answers and frames ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [b"NaN", b"1e999", b"7" * 5000, b"[" * 10_000 + b"]" * 10_000, rb'"\ud83d"', b'"\xff"']
)
def test_unreadable_value_loses_only_its_own_member(value):
    body = b'{"statusCode":0,"messages":[{"type":"a","index":1,"text":"x"},{"index":2,"text":%s,"type":"b"}]}' % value
    read = dialect().reply(call("refresh"), HttpAnswer(status=200, body=body), BASE)
    assert read.kind is ResponseKind.GOOD
    assert [(one.message.type, one.message.index) for one in read.received] == [("a", 1), ("b", 2)]
    assert bool(read.misread) is not value.startswith(b'"')


PUSH = b'{"channel":"/chat","data":{"text":"%s"}}'


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (b"\xef\xbb\xbf[" + PUSH % b"a" + b"]", ["/chat"]), (b"\xef\xbb\xbf" + PUSH % b"a", ["/chat"]),
        (b"[" + PUSH % b"\xff" + b"," + PUSH % rb"\ud83d" + b"]", ["/chat", "/chat"]),
        (b"[" + PUSH % b"a" + b',5,null,"x",[1],{"channel":"/x","n":NaN}]', ["/chat", "/x"]),
        (b"[{broken," + b"1]", None), (b"[" + PUSH % b"a" + b",{broken}," + PUSH % b"b" + b"]", ["/chat", "/chat"]),
        (b'[{"channel":"/x","d":' + b"[" * 9999 + b"]" * 9999 + b"}," + PUSH % b"a" + b"]", ["/x", "/chat"]),
        (b"<html>", None), (b"[", None), (b"[]", []), (b"", None),
    ],
)  # fmt: skip
def test_malformed_message_in_a_frame_loses_no_other(frame, found):
    if found is None:
        with pytest.raises(FrameError, match="what the server sent is no array of messages"):
            messages(frame)
    else:
        assert [head.channel for head, _ in messages(frame)] == found
        assert all(read_body(one).value for _, one in messages(frame))
