"""Check user data as form fields: equal to those of jQuery 3, and read back unchanged by the embedded server."""

from __future__ import annotations

import json
import math
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.limits import examples
from webchat_fsm._wire.request import bracketed, form, text
from webchat_fsm.server import HttpRequest
from webchat_fsm.server._http import fields_of, read_fields

TABLE = json.loads(Path(__file__).with_name("jquery_param.json").read_text(encoding="utf-8"))
"""Generated values and the bodies that jQuery posts for them, written by `jquery_param.mjs`."""


def test_generated_values_are_posted_as_by_jquery():
    assert len(TABLE) >= 400
    differing = [(value, body) for value, body in TABLE if form(bracketed("userData", value)).decode() != body]
    assert not differing


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        ({"cart": [{"sku": "A"}]}, [("u[cart][0][sku]", "A")]),
        ({"grid": [[1, 2]]}, [("u[grid][0][]", "1"), ("u[grid][0][]", "2")]),
        ({"l": [1, {"a": 2}, None, [3]]}, [("u[l][]", "1"), ("u[l][1][a]", "2"), ("u[l][]", ""), ("u[l][3][]", "3")]),
        ({"empty": [], "none": {}, "deep": [[], {}]}, []),
        ({"a": None, "b": True, "c": False}, [("u[a]", ""), ("u[b]", "true"), ("u[c]", "false")]),
        ({1: "a", None: "b", 2.0: "d"}, [("u[1]", "a"), ("u[null]", "b"), ("u[2]", "d")]),
        ({"d": date(2026, 7, 1), "l": [date(2026, 7, 1)]}, [("u[d]", "2026-07-01"), ("u[l][0]", "2026-07-01")]),
        ({"": [1, [2, 3], {"a": 1}]}, [("u[]", "1"), ("u[]", "2,3"), ("u[]", "[object Object]")]),
        ({"t": (1, (2,))}, [("u[t][]", "1"), ("u[t][1][]", "2")]),
    ],
)
def test_value_is_encoded_in_brackets(value, pairs):
    assert bracketed("u", value) == pairs


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1.0, "1"), (-0.0, "0"), (0.1, "0.1"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (1e-6, "0.000001"),
        (1e-7, "1e-7"), (-1.5e-9, "-1.5e-9"), (1.25e22, "1.25e+22"), (math.nan, "NaN"), (math.inf, "Infinity"),
        (-math.inf, "-Infinity"), (2**53 + 1, "9007199254740993"), (10**30, "1" + "0" * 30), (Decimal("1.50"), "1.50"),
    ],
)  # fmt: skip
def test_number_is_written_as_in_javascript(value, written):
    assert text(value) == written


@settings(max_examples=examples(200))
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float_is_read_back_unchanged(value):
    assert float(text(value)) == value


@settings(max_examples=examples(50))
@given(st.text())
def test_text_is_sent_without_lone_surrogates(given_text):
    body = form(bracketed("u", {given_text: given_text}))
    sent = given_text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert parse_qsl(body.decode(), keep_blank_values=True) == [(f"u[{sent}]", sent)]


# -- reading by the embedded server ------------------------------------------------------------------------------------


def read(body: bytes) -> dict[str, object]:
    request = HttpRequest("POST", "/", {"content-type": "application/x-www-form-urlencoded"}, body)
    return fields_of(read_fields(request), "userData")


_KEYS = st.text(st.characters(exclude_characters="[]\"'", exclude_categories=["Cs"]), min_size=1).filter(
    lambda key: not key.isdigit()
)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
_ITEMS = st.recursive(
    _TEXTS,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(_KEYS, inner, min_size=1, max_size=3),
)


@settings(max_examples=examples(50))
@given(st.dictionaries(_KEYS, _ITEMS, max_size=4))
def test_nested_form_is_read_back_by_the_server(value):
    assert read(form(bracketed("userData", value))) == value


@pytest.mark.parametrize(
    ("body", "read_back"),
    [
        (b"userData[c][0][a]=1&userData[c][0][b]=2&userData[c][1][a]=3", {"c": [{"a": "1", "b": "2"}, {"a": "3"}]}),
        (b"userData[c][999999999][a]=1", {"c": {"999999999": {"a": "1"}}}),
        (b"userData[c][0][a]=1&userData[c][7][a]=2", {"c": {"0": {"a": "1"}, "7": {"a": "2"}}}),
        (b"userData[c][]=1&userData[c][999999999][a]=2", {"c": {"0": "1", "999999999": {"a": "2"}}}),
        (b"userData[c][0][a]=1&userData[c][]=2", {"c": [{"a": "1"}, "2"]}),
        (b"userData[0]=a&userData[1]=b", {"0": "a", "1": "b"}),
        (b"userData[c][x]=1&userData[c][]=2", {"c": {"x": "1", "1": "2"}}),
        (b"userData[c][-1][a]=1&userData[c][\xc2\xb2]=1", {"c": {"-1": {"a": "1"}, "²": "1"}}),
    ],
)
def test_server_reads_numbers_in_brackets(body, read_back):
    assert read(body) == read_back


def test_server_limits_the_nesting_of_names():
    name = "userData" + "[a]" * (sys.getrecursionlimit() * 10)
    assert read_fields(HttpRequest("POST", "/", {}, f"{name}=1".encode())) == {name: "1"}
