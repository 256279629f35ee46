"""Test the heads of requests: what is kept from the last one is what urllib3 makes anew."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.connection import HTTPConnection
from urllib3.util import parse_url

from webchat_fsm._runtime.connections import RequestHeads

HOSTS = st.sampled_from(["chat.test", "chat.test:8080", "[::1]", "127.0.0.1:80", "me:pa55@chat.test"])
PATHS = st.sampled_from(["", "/", "/chat", "/a b", "/ä", "/a%2fb", "/a#b", "/a/../c"])
QUERIES = st.sampled_from(["", "?", "?a=b&c=%2F", "?a=%2f", "?100%", "?ä", "?a b", "?a#b", "?a?b", "?a'b"])
URLS = st.builds("http{}://{}{}{}".format, st.sampled_from(["", "s"]), HOSTS, PATHS, QUERIES)
PROXIES = st.sampled_from([None, parse_url("http://proxy.test:3128")])


@given(urls=st.lists(URLS, min_size=2, max_size=4), proxy=PROXIES)
def test_target_after_others_is_the_target_of_urllib3(urls, proxy):
    heads = RequestHeads(proxy)
    for url in urls:
        target, parts = heads.target(url), parse_url(url)
        if proxy is not None and parts.scheme == "http":
            assert target.line == parts._replace(auth=None, fragment=None).url
        else:
            assert target.line == parts.request_uri
        assert (target.route.secure, target.route.host) == (parts.scheme == "https", parts.host)


@pytest.mark.parametrize("url", ["ftp://chat.test/", "chat.test", "http:///chat"])
def test_target_of_an_invalid_url_is_a_value_error(url):
    with pytest.raises(ValueError):
        RequestHeads(None).target(url)


class Keeping(HTTPConnection):
    """Keep what is sent."""

    def send(self, data):
        self.__dict__.setdefault("sent", []).append(data)


REQUESTS = st.tuples(
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["/chat", "/chat/refresh"]),
    st.sampled_from([b"", b"a=b", b"x" * 12]),
    st.dictionaries(
        st.sampled_from(["apikey", "Content-Type", "User-Agent", "content-length"]), st.sampled_from(["0", "y; z"])
    ),
)


@given(requests=st.lists(REQUESTS, min_size=2, max_size=6), port=st.sampled_from([80, 8080]))
def test_head_after_others_is_the_head_of_urllib3(requests, port):
    heads = RequestHeads(None)
    for method, path, body, headers in requests:
        plain = Keeping("chat.test", port)
        plain.request(method, path, body=body, headers=headers)
        assert heads.head(heads.target(f"http://chat.test:{port}{path}"), method, headers, body) == plain.sent[0]


@pytest.mark.parametrize(
    "addresses", [("http://a.test/x", "http://a.test:80/x"), ("http://a.test/x", "http://b.test/x")]
)
def test_head_for_a_proxy_names_the_host_of_its_own_url(addresses):
    for address in addresses:
        heads = RequestHeads(parse_url("http://proxy.test:3128"))
        host = address.split("/")[2].encode()
        assert b"\r\nHost: " + host + b"\r\n" in heads.head(heads.target(address), "GET", {}, b"")


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"X\n": "a"}, {"X:": "a"}, {"": "a"}])
def test_invalid_header_is_refused_each_time(headers):
    heads = RequestHeads(None)
    target = heads.target("http://chat.test/")
    for _ in range(2):
        with pytest.raises(ValueError, match="Invalid header"):
            heads.head(target, "GET", headers, b"")
