"""Check the timers of liveness and inactivity; the tests set the time."""

from __future__ import annotations


def test_default_options_set_no_timer(visitor):
    assert visitor.server.tick(visitor.now) is None
    visitor.now += 1_000_000
    assert visitor.refresh()["chatEnded"] is False


def test_client_without_poll_is_removed_after_liveness(visit):
    visitor = visit(liveness=45.0)
    visitor.start()
    visitor.now += 44.9
    assert visitor.refresh()["statusCode"] == 0
    assert visitor.server.tick(visitor.now) == visitor.now + 0.1
    visitor.now += 45.0
    gone = visitor.refresh()
    assert (gone["statusCode"], gone["chatEnded"], gone["errors"][0]["code"]) == (2, True, 249)
    left = visitor.server.current_chat().transcript[-1]
    assert (left.type, left.utc_time) == ("ParticipantLeft", 1_089_900)


def test_only_own_requests_restart_liveness(visit, rest_class):
    visitor = visit(liveness=45.0)
    visitor.start()
    other = rest_class(visitor.server)
    other.start(nickname="Mia")
    ann = visitor.server.agent("Ann").join(visitor.server.chats[0])
    for moment in (1030.0, 1060.0, 1090.0):
        visitor.now = other.now = moment
        other.call("startTyping")
        ann.say("still there?") if not visitor.server.chats[0].ended else None
    assert [chat.ended for chat in visitor.server.chats] == [True, False]


def test_idle_chat_gets_alert_and_then_is_closed(visit, types):
    visitor = visit(idle_alert=255.0, idle_close=45.0)
    visitor.start()
    visitor.now += 255
    envelope = visitor.refresh(2)
    assert types(envelope) == ["IdleAlert"]
    assert envelope["messages"][0]["from"] == {"nickname": "system", "participantId": 2, "type": "External"}
    assert envelope["messages"][0]["userData"] == {"next-idle-timer-type": "CLOSE", "next-idle-timer-secs": "45"}
    assert envelope["idleTimerExpire"] == 45
    visitor.now += 20
    assert visitor.refresh()["idleTimerExpire"] == 25
    visitor.now += 25
    last = visitor.refresh(3)
    assert types(last) == ["IdleClose"]
    assert last["chatEnded"] is True
    assert "idleTimerExpire" not in last


def test_second_idle_alert_precedes_close(visit, types):
    visitor = visit(idle_alert=10.0, idle_alert_again=5.0, idle_close=3.0)
    visitor.start()
    visitor.now += 100
    envelope = visitor.refresh(2)
    assert types(envelope) == ["IdleAlert", "IdleAlert", "IdleClose"]
    assert [message["utcTime"] for message in envelope["messages"]] == [1_010_000, 1_015_000, 1_018_000]
    assert envelope["messages"][0]["userData"]["next-idle-timer-type"] == "ALERT"
    assert len({message["from"]["participantId"] for message in envelope["messages"]}) == 1


def test_message_restarts_idle_timers_but_typing_does_not(visit, types):
    visitor = visit(idle_alert=10.0, idle_close=100.0)
    visitor.start()
    visitor.now += 8
    visitor.call("send", message="hi")
    visitor.now += 8
    visitor.call("startTyping")
    assert types(visitor.refresh(2)) == ["Message", "TypingStarted"]
    visitor.now += 2
    assert types(visitor.refresh(4)) == ["IdleAlert"]
    visitor.call("send", message="here")
    visitor.now += 10
    assert types(visitor.refresh(5)) == ["Message", "IdleAlert"]


def test_custom_notice_cancels_idle_timer(visit):
    visitor = visit(idle_alert=10.0, idle_close=5.0)
    visitor.start()
    visitor.now += 12
    visitor.call("customNotice", eventAttributes='{"purpose":"cancel-idle-timer"}')
    visitor.now += 5
    envelope = visitor.refresh()
    assert envelope["chatEnded"] is False
    assert "idleTimerExpire" not in envelope


def test_ended_chat_has_no_timers(visit):
    visitor = visit(liveness=45.0, idle_alert=10.0)
    visitor.start()
    visitor.call("disconnect")
    assert visitor.server.tick(visitor.now + 100) is None
    assert len(visitor.server.current_chat().transcript) == 2
