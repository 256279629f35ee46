"""The server's limits for uploads, checked before a byte is read (errors 201, 202 and 203 of the v2 API)."""

from __future__ import annotations

from collections.abc import Sequence

from webchat_fsm.core.facts import Limits
from webchat_fsm.lifecycle.words import FileToSend, Json, Response

TOO_MANY, TOO_LARGE, WRONG_TYPE = 201, 202, 203


def refuse(files: Sequence[FileToSend], limits: Limits | None) -> Response | None:
    """An answer shaped like the server's refusal, None where the files may be sent."""
    if limits is None:
        return None
    errors = [error for file in files for error in _of_one(file, limits)] + _of_all(files, limits)
    return Response(status=400, body={"errors": errors}, errors=errors) if errors else None


def told(refused: Response) -> str:
    """Which file is refused and what would be allowed, as a reason for people."""
    faults = "; ".join(_TOLD[error["code"], "filename" in error].format_map(error) for error in refused.errors)
    return f"the server's limits do not allow this upload: {faults}"


_TOLD = {
    (WRONG_TYPE, True): "{filename} is of none of the allowed types {advice}",
    (TOO_LARGE, True): "{filename} is larger than the {advice} bytes allowed for a file",
    (TOO_LARGE, False): "together the files are larger than the {advice} bytes allowed for a chat",
    (TOO_MANY, False): "there would be more files than the {advice} allowed for a chat",
}


def _of_one(file: FileToSend, limits: Limits) -> list[Json]:
    errors: list[Json] = []
    extension = file.name.rpartition(".")[2].lower() if "." in file.name else ""
    if limits.file_types and extension not in limits.file_types:
        errors.append({"code": WRONG_TYPE, "advice": ":".join(limits.file_types), "filename": file.name})
    if limits.max_file_size is not None and file.size > limits.max_file_size:
        errors.append({"code": TOO_LARGE, "advice": str(limits.max_file_size), "filename": file.name})
    return errors


def _of_all(files: Sequence[FileToSend], limits: Limits) -> list[Json]:
    errors: list[Json] = []
    if limits.max_files is not None and limits.used_files + len(files) > limits.max_files:
        errors.append({"code": TOO_MANY, "advice": str(limits.max_files)})
    total = limits.used_total_size + sum(file.size for file in files)
    if limits.max_total_size is not None and total > limits.max_total_size:
        errors.append({"code": TOO_LARGE, "advice": str(limits.max_total_size)})
    return errors
