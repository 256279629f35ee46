"""Test the input of a chat: lines from bytes, and lines that begin with a slash."""

from __future__ import annotations

import os

import pytest

from webchat_fsm import WebChatError
from webchat_fsm._cli.conversation import COMMANDS, PlainLines, run_command


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([], []),
        ([b"hi\nthere\n"], ["hi", "there"]),
        ([b"hi\r\n", b"unfini", b"shed"], ["hi", "unfinished"]),
        (["Zwölf €\n".encode()[:2], "Zwölf €\n".encode()[2:]], ["Zwölf €"]),
        ([b"bad \xff byte\n"], ["bad \ufffd byte"]),
        ([b"cut \xe2\x82"], ["cut \ufffd"]),
        ([b"\n\n"], ["", ""]),
    ],
)
def test_lines_are_read_from_bytes_in_any_chunks(chunks, lines):
    source, sink = os.pipe()
    reader = PlainLines(source)
    for chunk in chunks:
        os.write(sink, chunk)
    os.close(sink)
    assert list(iter(reader.read, None)) == lines
    os.close(source)


def test_stop_ends_the_lines_of_an_open_pipe():
    source, sink = os.pipe()
    reader = PlainLines(source)
    os.write(sink, b"one\nunfinished")
    assert reader.read() == "one"
    reader.stop()
    assert reader.read() is None
    os.close(sink)
    assert list(iter(reader.read, None)) == ["unfinished"]
    os.close(source)


def test_unreadable_input_is_end_of_input(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)  # opens, but reading it is an error
    assert PlainLines(folder).read() is None
    os.close(folder)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("/frobnicate now", "unknown command /frobnicate: /help"),
        ("/leave now", "wrong arguments for /leave: usage is /leave"),
        ("/file 'a", "invalid quotes in /file 'a: No closing quotation"),
        ("/file", "wrong arguments for /file: usage is /file PATH"),
        ("/save", "wrong arguments for /save: usage is /save ID"),
        ("/save a b c", "wrong arguments for /save: usage is /save ID"),
    ],
)
def test_invalid_slash_command_is_rejected_with_its_usage(webchat, line, error):
    with pytest.raises(WebChatError, match=error):
        list(run_command(webchat, line))


def test_help_lists_every_slash_command(webchat):
    answer = "\n".join(run_command(webchat, "/help"))
    for command in COMMANDS.values():
        assert command.usage in answer
        assert command.meaning in answer


def test_slash_commands_send_and_save_files(webchat, webchat_server, webchat_timeline, tmp_path):
    webchat.start_chat(nickname="Jonny")
    ann = webchat_server.agent("Ann")
    assert list(run_command(webchat, "/agents")) == ["No agent has joined yet."]
    ann.join()
    sent = ann.send_file("list.txt", b"one, two")
    webchat_timeline.advance(3.0)
    assert list(run_command(webchat, "/agents")) == ["Ann (agent)"]
    own = tmp_path / "my own.txt"
    own.write_text("mine")
    assert list(run_command(webchat, f"/file '{own}'")) == [f"Sent: {own}"]
    assert list(run_command(webchat, f"/save {sent.id} {tmp_path}")) == [f"Saved as {tmp_path / 'list.txt'}"]
    assert (tmp_path / "list.txt").read_bytes() == b"one, two"
    [state] = run_command(webchat, "/state")
    assert state.startswith("polling; legal commands: ")
