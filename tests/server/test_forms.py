"""Check the reading of request bodies: forms, JSON and multipart, as clients write them."""

from __future__ import annotations

import sys

import pytest

from webchat_fsm._errors import MissingExtraError
from webchat_fsm.server import HttpRequest, UploadedFile
from webchat_fsm.server._http import UnreadableBodyError, fields_of, read_fields, text_of


def read(body: bytes, kind: str = "application/x-www-form-urlencoded", query: str = "", **options: bool):
    return read_fields(HttpRequest("POST", "/", {"content-type": kind}, body, query), **options)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", {}),
        (b"a=1&b=", {"a": "1", "b": ""}),
        (b"&a=1&&b=2&", {"a": "1", "b": "2"}),
        (b"a=x+y%20z", {"a": "x y z"}),
        ("a=ä%C3%B6".encode(), {"a": "äö"}),
        (b"userData[k]=v", {"userData": {"k": "v"}}),
        (b"userData%5Bk%5D=v&userData%5Bl%5D=w", {"userData": {"k": "v", "l": "w"}}),
        (b"userData[a][b]=c&userData[a][d]=e", {"userData": {"a": {"b": "c", "d": "e"}}}),
        (b'userData["Reason"]=x', {"userData": {"Reason": "x"}}),
        (b"data[a][]=1&data[a][]=2", {"data": {"a": ["1", "2"]}}),
        (b"alias=&alias=117", {"alias": "117"}),
        (b"alias=117&alias=", {"alias": "117"}),
        (b"a=1&a[b]=2", {"a": {"b": "2"}}),
        (b"odd[=1&odd]=2&[x]=3", {"odd[": "1", "odd]": "2", "[x]": "3"}),
        (b"a[b]c=1", {"a[b]c": "1"}),
        (b"flag", {"flag": ""}),
    ],
)
def test_urlencoded_body_becomes_fields(body, fields):
    assert read(body) == fields


@pytest.mark.parametrize("kind", ["", "text/plain;charset=UTF-8", "application/octet-stream"])
def test_form_with_other_content_type_is_read(kind):
    assert read(b"message=hi", kind) == {"message": "hi"}


def test_json_body_equals_form_body():
    form = read(b"operationId=1&data[type]=Text&data[text]=Hi")
    assert read(b'{"operationId":"1","data":{"type":"Text","text":"Hi"}}', "application/json;charset=utf-8") == form


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff"])
def test_invalid_json_or_non_object_is_400(body):
    with pytest.raises(UnreadableBodyError) as caught:
        read(body, "application/json")
    assert caught.value.status == 400


def test_query_fields_yield_to_body_where_empty():
    assert read(b"a=1&c=3", query="a=&b=2") == {"a": "1", "b": "2", "c": "3"}


def test_multipart_with_file_and_nested_names_is_read(make_multipart):
    body, kind = make_multipart({"secureKey": "k", "userData[a]": "b"}, {"file": ("ä.png", b"\r\n--x\x00")})
    assert read(body, kind) == {
        "secureKey": "k",
        "userData": {"a": "b"},
        "file": UploadedFile("ä.png", "image/png", b"\r\n--x\x00"),
    }


def test_large_file_is_read_whole(make_multipart):
    content = bytes(range(256)) * 8192
    body, kind = make_multipart({}, {"file": ("a.bin", content)})
    assert read(body, kind)["file"].content == content


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"--x\r\n", "multipart/form-data"),
        (b"no boundary in here", "multipart/form-data; boundary=x"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\ntorn', "multipart/form-data; boundary=x"),
    ],
)
def test_broken_multipart_is_400(body, kind):
    with pytest.raises(UnreadableBodyError) as caught:
        read(body, kind)
    assert caught.value.status == 400


def test_sniffing_finds_boundary_and_is_415_without(make_multipart):
    body, _ = make_multipart({"a": "1"}, {})
    assert read(body, sniff_multipart=True) == {"a": "1"}
    with pytest.raises(UnreadableBodyError) as caught:
        read(body)
    assert caught.value.status == 415


def test_field_texts_are_equal_for_json_and_forms():
    fields = {"n": 3, "yes": True, "none": None, "group": {"a": 1}, "json": '{"b": 2}', "text": "x"}
    assert [text_of(fields, name) for name in ("n", "yes", "none", "text", "absent")] == ["3", "true", None, "x", None]
    assert fields_of(fields, "group") == {"a": 1}
    assert fields_of(fields, "json") == {"b": 2}
    assert fields_of(fields, "text") == {}
    assert fields_of({"odd": "{not json"}, "odd") == {}
    assert text_of({"file": UploadedFile("a.txt", "text/plain", b"x")}, "file") is None


def test_upload_without_parser_names_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'webchat-fsm\[server\]'"):
        read(b"--x--", "multipart/form-data; boundary=x")
