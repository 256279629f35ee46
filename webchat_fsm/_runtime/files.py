"""Local files: those that sendFile uploads, and where downloadFile writes."""

from __future__ import annotations

import email.message
import email.utils
import io
import mimetypes
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from webchat_fsm._model import FileToSend, scalars

UNNAMED = "download"
LONGEST_NAME = 200
"""The longest name in bytes, which leaves room for a number behind it in every file system."""


def to_send(given: Any) -> list[FileToSend]:
    """Return the files of paths, open binary files or a list of them; raises `ValueError` or `OSError`."""
    single = isinstance(given, str | bytes | bytearray | os.PathLike) or hasattr(given, "read")
    listed = [given] if single or not isinstance(given, Iterable) else list(given)
    return [_of_object(one) if hasattr(one, "read") else _of_path(one) for one in listed]


def _of_path(given: Any) -> FileToSend:
    if not isinstance(given, str | os.PathLike):
        hint = "; for content wrap it in io.BytesIO" if isinstance(given, bytes | bytearray) else ""
        raise ValueError(f"files must be paths or open files, not {type(given).__name__}{hint}")
    path = Path(os.fsdecode(given))
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    return FileToSend(name=path.name, size=path.stat().st_size, content_type=_type(path.name), source=path.read_bytes)


def _of_object(file: Any) -> FileToSend:
    known = getattr(file, "name", None)
    name = Path(known).name if isinstance(known, str) else "file"
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)

    def source() -> bytes:
        file.seek(start)
        content = file.read()
        if not isinstance(content, bytes):
            raise OSError("the file is not open in binary mode")
        return content

    return FileToSend(name=name, size=size, content_type=_type(name), source=source)


def _type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def bare_name(given: str) -> str:
    """Return a server's file name without folders, drive letters, control characters or leading dots."""
    last = re.split(r"[\\/]", scalars(given))[-1]
    clean = re.sub(r'[\x00-\x1f<>:"|?*]', "_", last).strip().lstrip(".")
    return clean.encode()[-LONGEST_NAME:].decode(errors="ignore") or UNNAMED


def named_in(content_disposition: str) -> str:
    """Return the file name of a Content-Disposition header, "" without one; its encoded form wins (RFC 6266)."""
    message = email.message.Message()
    message["Content-Disposition"] = re.sub(r"[\r\n]", " ", content_disposition)
    given: Any = message.get_params(failobj=[], header="Content-Disposition")
    names = [value for key, value in given if key.lower() == "filename"]
    encoded = [value for value in names if isinstance(value, tuple)]
    try:
        return email.utils.collapse_rfc2231_value((encoded or names or [""])[-1])
    except ValueError:  # an unknown encoding, or bytes that it cannot decode
        return ""


def put(content: bytes, to: str | os.PathLike[str], name: str) -> Path:
    """Write a download to the path given, or into it where it is a folder; one that ends with a slash is a folder."""
    target = Path(to)
    if target.is_dir() or os.fspath(to).endswith(("/", os.sep)):
        return put_into(to, content, name)
    target.write_bytes(content)
    return target


def put_into(folder: str | os.PathLike[str], content: bytes, name: str) -> Path:
    """Write a download into a folder, which is made where it is missing, under the server's name; never over a file."""
    target, bare = Path(folder), Path(bare_name(name))
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is no folder")
    target.mkdir(parents=True, exist_ok=True)
    for number in range(1000):
        path = target / (bare.name if not number else f"{bare.stem} ({number}){bare.suffix}")
        try:
            with path.open("xb") as file:
                file.write(content)
        except FileExistsError:
            continue
        except BaseException:  # a full disk, or an interruption: a part of a file must not look like the whole
            path.unlink(missing_ok=True)
            raise
        return path
    raise FileExistsError(f"{target}: a thousand files named {bare} are there already")
