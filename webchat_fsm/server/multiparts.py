"""Multipart bodies, read with python-multipart; the only place that knows it."""

from __future__ import annotations

import msgspec
from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_options_header


class Part(msgspec.Struct, frozen=True):
    """One part; a file if it has a file name."""

    name: str
    filename: str | None
    content_type: str
    content: bytes


class UnreadableMultipartError(Exception):
    """A body that is not what its content type says."""


def parse(body: bytes, content_type: str) -> list[Part]:
    """The parts of a complete multipart body, in order."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise UnreadableMultipartError("multipart/form-data without a boundary")
    if b"--" + boundary + b"--" not in body:
        raise UnreadableMultipartError("the multipart body has no end")
    parts: list[Part] = []

    def on_field(field: Field) -> None:
        parts.append(Part(_text(field.field_name), None, "text/plain", field.value or b""))

    def on_file(file: File) -> None:
        file.file_object.seek(0)
        kind = file.content_type or "application/octet-stream"
        parts.append(Part(_text(file.field_name), _text(file.file_name), kind, file.file_object.read()))

    # Everything stays in memory: the core touches no file system.
    config = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}
    parser = FormParser("multipart/form-data", on_field, on_file, boundary=boundary, config=config)
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise UnreadableMultipartError(f"the multipart body cannot be read: {error}") from error
    return parts


def _text(name: bytes | None) -> str:
    return (name or b"").decode("utf-8", "replace")
