"""What is typed: lines out of bytes, and lines that begin with a slash."""

from __future__ import annotations

import pytest

from webchat_fsm import WebChatError
from webchat_fsm.cli.reading import split_lines
from webchat_fsm.cli.slash import LEAVING, SLASHES, carry_out


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
def test_lines_come_out_of_bytes_however_they_are_cut(chunks, lines):
    assert list(split_lines(chunks)) == lines


def test_a_slash_that_is_not_known_is_refused_with_a_way_to_help(webchat):
    with pytest.raises(WebChatError, match="there is no /frobnicate; /help"):
        list(carry_out(webchat, "/frobnicate now"))
    with pytest.raises(WebChatError, match="/leave stands alone"):
        list(carry_out(webchat, "/leave now"))
    with pytest.raises(WebChatError, match="No closing quotation"):
        list(carry_out(webchat, "/file 'a"))
    with pytest.raises(WebChatError, match="which file"):
        list(carry_out(webchat, "/file"))
    with pytest.raises(WebChatError, match="which file"):
        list(carry_out(webchat, "/save"))


def test_help_lists_every_slash(webchat):
    answer = "\n".join(carry_out(webchat, "/help"))
    for slash in (*SLASHES.values(), *LEAVING.values()):
        assert slash.usage in answer
        assert slash.meaning in answer


def test_files_go_both_ways(webchat, webchat_server, webchat_timeline, tmp_path):
    webchat.start_chat(nickname="Jonny")
    ann = webchat_server.agent("Ann")
    assert list(carry_out(webchat, "/agents")) == ["Nobody has joined yet."]
    ann.join()
    sent = ann.send_file("list.txt", b"one, two")
    webchat_timeline.advance(3.0)
    assert list(carry_out(webchat, "/agents")) == ["Ann (agent)"]
    own = tmp_path / "my own.txt"
    own.write_text("mine")
    assert list(carry_out(webchat, f"/file '{own}'")) == [f"Sent: {own}"]
    assert list(carry_out(webchat, f"/save {sent.id} {tmp_path}")) == [f"Saved as {tmp_path / 'list.txt'}"]
    assert (tmp_path / "list.txt").read_bytes() == b"one, two"
    [state] = carry_out(webchat, "/state")
    assert state.startswith("polling; legal here: ")
