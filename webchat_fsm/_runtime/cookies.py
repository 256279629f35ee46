"""The cookies of a service that keeps any, in the jar of the standard library."""

from __future__ import annotations

import threading
from http.cookiejar import Cookie, CookieJar, CookiePolicy, DefaultCookiePolicy
from typing import Any
from urllib.request import Request as CookieRequest

COOKIES = 50
"""How many cookies are kept at most."""

COOKIE_SIZE = 4096
"""Characters of a cookie's name and value together at most."""


class CookieStore:
    """Hold the cookies of one service."""

    def __init__(self) -> None:
        self._jar = _Jar(_CookiePolicy())
        self._lock = threading.Lock()

    def header(self, url: str) -> str:
        """Return the cookies for a URL as the value of one header; empty where there are none."""
        with self._lock:
            if not len(self._jar):
                return ""
            request = CookieRequest(url)
            self._jar.add_cookie_header(request)
        return request.get_header("Cookie") or ""

    def remember(self, url: str, cookies: list[str]) -> None:
        """Keep the cookies that an answer from a URL sets, each the value of a Set-Cookie header."""
        with self._lock:
            self._jar.extract_cookies(_CookieHeaders(cookies), CookieRequest(url))  # type: ignore[arg-type]
            for cookie in list(self._jar)[COOKIES:]:
                self._jar.clear(cookie.domain, cookie.path, cookie.name)


class _NoLock:
    """Replaces the jar's own lock: its `with` runs Python code, and a signal there would leave the lock taken.

    `CookieStore` guards the jar with a lock in C.
    """

    def acquire(self) -> None:
        """Do nothing."""

    release = acquire
    __enter__ = acquire

    def __exit__(self, *error: object) -> None: ...


class _Jar(CookieJar):
    def __init__(self, policy: CookiePolicy | None = None) -> None:
        super().__init__(policy)
        self._cookies_lock = _NoLock()


class _CookiePolicy(DefaultCookiePolicy):
    """Accepts no cookie that a browser would refuse for its size (RFC 6265, 6.1)."""

    def set_ok(self, cookie: Cookie, request: CookieRequest) -> bool:
        size = len(cookie.name) + len(cookie.value or "")
        return size <= COOKIE_SIZE and super().set_ok(cookie, request)


class _CookieHeaders:
    """The part of an `urllib` response that a cookie jar reads."""

    def __init__(self, cookies: list[str]) -> None:
        self._cookies = cookies

    def info(self) -> Any:
        """Return the headers, as the jar calls them."""
        return self

    def get_all(self, name: str, default: Any = None) -> Any:
        """Return all values of a header."""
        return (self._cookies if name.lower() == "set-cookie" else None) or default
