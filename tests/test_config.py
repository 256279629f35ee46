"""Test the documented configuration object: accepted values, errors with their paths, and masked secrets."""

from __future__ import annotations

import logging
from types import MappingProxyType

import pytest

from webchat_fsm import Config, ConfigError, WebChatService
from webchat_fsm._config import UI_KEYS, _warned

V2 = {"dataURL": "https://host/genesys/2/chat/customer-support"}
V3 = {"transport": {"dataURL": "https://host/nexus/v3/chat/sessions", "endpoint": "chat"}}
COMETD = {"cometD": {"enabled": True, "cometURL": "https://host/cometd", "apiURL": "https://host/files"}}


@pytest.fixture(autouse=True)
def clear_warned_keys():
    _warned.clear()


def test_every_documented_key_is_read():
    def hook(*given):
        return None

    config = Config.read(
        {
            "apikey": "key",
            "endpoint": "customer-support",
            "dataURL": "https://host/chat",
            "enableCustomHeader": True,
            "userData": {"tier": "gold"},
            "ajaxTimeout": 4000,
            "xhrFields": {"withCredentials": True},
            "pollExceptionLimit": 7,
            "restoreTimeout": 1000,
            "pollRate": 500,
            "pollRateMin": 200,
            "pollRateMax": 900,
            "pollRateMult": 1.5,
            "dynamicPolling": False,
            "maxMessageLength": 100,
            "fileUploadTimeout": 9000,
            "enableUrlTrailingSlash": False,
            "cometD": {
                "enabled": False,
                "cometURL": "https://host/cometd",
                "channel": "/service/chatV2/x",
                "apiURL": "https://host/files",
                "websocketEnabled": True,
                "logLevel": "debug",
            },
            "transport": {
                "type": "pureengage-v3-rest",
                "dataURL": "https://host/sessions",
                "endpoint": "chat",
                "headers": {"x-api-key": "k"},
                "async": {
                    "enabled": True,
                    "getSessionData": hook,
                    "setSessionData": hook,
                    "deleteSessionData": hook,
                },
                "stream": "s",
                "clientType": "c",
                "pollTimeout": 2000,
                "pollIntervalMultiplier": 1.3,
                "maxMessagePageSize": 10,
            },
            "client": {
                "tls": {"verify": False, "ca": "ca.pem", "cert": "c.pem", "key": "k.pem", "keyPassword": "p"},
                "proxy": "http://proxy:3128",
                "headers": {"X": "y"},
                "retry": {"staleConnection": 2, "retryAfterCap": 1000},
                "pollJitter": 0.5,
                "maxAnswerSize": 5000,
                "maxDownloadSize": 6000,
                "deliveryTimeout": 200,
                "onHandlerError": hook,
                "downloadDir": "/tmp",
            },
        }
    )
    assert (config.poll_exception_limit, config.poll_rate_mult, config.transport.max_message_page_size) == (7, 1.5, 10)
    assert config.transport.asynchronous.get_session_data is hook
    assert (config.client.tls.key_password, config.client.retry.stale_connection) == ("p", 2)
    assert config.way == "v3-async"


def test_documented_defaults_hold():
    config = Config.read(V2)
    assert (config.ajax_timeout, config.poll_exception_limit, config.restore_timeout) == (3000, 5, 60_000)
    assert (config.poll_rate, config.poll_rate_min, config.poll_rate_max) == (3000, 500, 3000)
    assert (config.poll_rate_mult, config.dynamic_polling) == (1.2, True)
    assert (config.enable_custom_header, config.enable_url_trailing_slash) == (False, True)
    assert config.comet_d.channel == "/service/chatV2/customer-support"
    assert not config.xhr_fields.with_credentials
    assert config.client.delivery_timeout == 1000
    assert config.client.tls.verify
    transport = Config.read(V3).transport
    assert (transport.poll_timeout, transport.poll_interval_multiplier) == (3000, 1.2)
    assert transport.max_message_page_size == 20
    assert not transport.asynchronous.enabled


@pytest.mark.parametrize(
    ("given", "way", "address"),
    [
        (V2, "v2", "https://host/genesys/2/chat/customer-support"),
        (V3, "v3", "https://host/nexus/v3/chat/sessions"),
        ({**V2, **V3}, "v3", "https://host/nexus/v3/chat/sessions"),
        (
            {"transport": {**V3["transport"], "async": {"enabled": True}}},
            "v3-async",
            "https://host/nexus/v3/chat/sessions",
        ),
        (COMETD, "cometd", "https://host/cometd"),
        ({**V2, "cometD": {"enabled": False}}, "v2", "https://host/genesys/2/chat/customer-support"),
    ],
)
def test_configuration_selects_the_transport(given, way, address):
    config = Config.read(given)
    assert (config.way, config.address) == (way, address)


def test_whole_widgets_object_is_read():
    config = Config.read({"main": {"header": {"X-Tenant": "a"}, "theme": "dark"}, "webchat": {**V2, "userData": {}}})
    assert config.data_url == V2["dataURL"]
    assert config.custom_headers == {"X-Tenant": "a"}


def test_nested_mappings_of_any_type_are_read():
    given = MappingProxyType({**V2, "userData": MappingProxyType({"a": "b"}), "client": MappingProxyType({})})
    assert Config.read(given).user_data == {"a": "b"}


def test_config_instance_is_returned_unchanged():
    config = Config.read(V2)
    assert Config.read(config) is config


WRONG = [
    ({}, "$.dataURL"),
    ({"dataURL": "host/chat"}, "$.dataURL"),
    ({"dataURL": "ftp://host"}, "$.dataURL"),
    ({"dataURL": "http://host:port/"}, "$.dataURL"),
    ({"dataURL": 5}, "$.dataURL"),
    ({**V2, "apikey": 5}, "$.apikey"),
    ({**V2, "userData": "x"}, "$.userData"),
    ({**V2, "ajaxTimeout": "3000"}, "$.ajaxTimeout"),
    ({**V2, "ajaxTimeout": 0}, "$.ajaxTimeout"),
    ({**V2, "ajaxTimeout": True}, "$.ajaxTimeout"),
    ({**V2, "restoreTimeout": float("nan")}, "$.restoreTimeout"),
    ({**V2, "restoreTimeout": float("inf")}, "$.restoreTimeout"),
    ({**V2, "restoreTimeout": -1}, "$.restoreTimeout"),
    ({**V2, "pollExceptionLimit": 1.5}, "$.pollExceptionLimit"),
    ({**V2, "pollExceptionLimit": -1}, "$.pollExceptionLimit"),
    ({**V2, "pollRate": 5}, "$.pollRate"),
    ({**V2, "pollRateMin": 5000}, "$.pollRateMax"),
    ({**V2, "pollRateMax": float("inf")}, "$.pollRateMax"),
    ({**V2, "pollRateMax": float("nan")}, "$.pollRateMax"),
    ({**V2, "ajaxTimeout": 1e300}, "$.ajaxTimeout"),
    ({**V2, "fileUploadTimeout": 2**63}, "$.fileUploadTimeout"),
    ({**V2, "client": {"retry": {"retryAfterCap": 1e300}}}, "$.client.retry.retryAfterCap"),
    ({**V2, "pollRateMult": 0.5}, "$.pollRateMult"),
    ({**V2, "dynamicPolling": "yes"}, "$.dynamicPolling"),
    ({**V2, "xhrFields": True}, "$.xhrFields"),
    ({**V2, "xhrFields": {"withCredentials": 1}}, "$.xhrFields.withCredentials"),
    ({**V2, "enableCustomHeader": True}, "$.enableCustomHeader"),
    ({**V2, "_main.header": {}}, "$._main.header"),
    ({"transport": True}, "$.transport"),
    ({"transport": {**V3["transport"], "async": {"enabled": "yes"}}}, "$.transport.async.enabled"),
    ({"transport": {**V3["transport"], "async": {"enabled": True, "getSessionData": 5}}},
     "$.transport.async.getSessionData"),
    ({"transport": {**V3["transport"], "headers": {"a": 5}}}, "$.transport.headers"),
    ({"transport": {**V3["transport"], "type": "pureengage-v4"}}, "$.transport.type"),
    ({"transport": {**V3["transport"], "dataURL": ""}}, "$.transport.dataURL"),
    ({"transport": {**V3["transport"], "endpoint": ""}}, "$.transport.endpoint"),
    ({"transport": {**V3["transport"], "pollTimeout": 1}}, "$.transport.pollTimeout"),
    ({"transport": {**V3["transport"], "maxMessagePageSize": 0}}, "$.transport.maxMessagePageSize"),
    ({**V3, **COMETD}, "$.cometD.enabled"),
    ({"cometD": {"enabled": True, "apiURL": "https://x"}}, "$.cometD.cometURL"),
    ({"cometD": {"enabled": True, "cometURL": "https://x"}}, "$.cometD.apiURL"),
    ({**V2, "client": []}, "$.client"),
    ({**V2, "client": {"tls": {"verify": "no"}}}, "$.client.tls.verify"),
    ({**V2, "client": {"tls": {"key": "k.pem"}}}, "$.client.tls.key"),
    ({**V2, "client": {"proxy": "proxy:3128"}}, "$.client.proxy"),
    ({**V2, "client": {"pollJitter": 2}}, "$.client.pollJitter"),
    ({**V2, "client": {"maxAnswerSize": 1}}, "$.client.maxAnswerSize"),
    ({**V2, "client": {"maxDownloadSize": 0}}, "$.client.maxDownloadSize"),
    ({**V2, "client": {"deliveryTimeout": -1}}, "$.client.deliveryTimeout"),
    ({**V2, "client": {"deliveryTimeout": float("inf")}}, "$.client.deliveryTimeout"),
    ({**V2, "client": {"retry": {"staleConnection": -1}}}, "$.client.retry.staleConnection"),
    ({**V2, "client": {"retry": {"retryAfterCap": -1}}}, "$.client.retry.retryAfterCap"),
    ({**V2, "client": {"onHandlerError": "print"}}, "$.client.onHandlerError"),
    ({"webchat": 5}, "$.webchat"),
    ({"webchat": V2, "main": 5}, "$.main"),
    ({"webchat": V2, "main": {"header": "x"}}, "$.main.header"),
    ([], "$"),
    (None, "$"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "path"), WRONG, ids=[path for _, path in WRONG])
def test_invalid_value_is_rejected_with_its_path(given, path):
    with pytest.raises(ConfigError) as caught:
        WebChatService(given)
    assert caught.value.path.startswith(path)
    assert str(caught.value).startswith(f"{caught.value.path}: ")
    assert isinstance(caught.value, ValueError)


SECRET = "sEcReT"


@pytest.mark.parametrize(
    "given",
    [
        {**V2, "apikey": f"{SECRET}\r\nX-Injected: yes"},
        {**V2, "client": {"headers": {"X-Tenant": f"{SECRET}\n"}}},
        {"transport": {**V3["transport"], "headers": {"x-api-key": f"{SECRET}\u2028"}}},
        {"webchat": {**V2, "enableCustomHeader": True}, "main": {"header": {"X": f"{SECRET}\x00"}}},
        {**V2, "apikey": [SECRET]},
        {**V2, "client": {"tls": {"keyPassword": [SECRET]}}},
    ],
)
def test_invalid_header_value_is_rejected_without_showing_it(given):
    with pytest.raises(ConfigError) as caught:
        Config.read(given)
    assert SECRET not in str(caught.value)


def test_unknown_key_is_logged_once_with_the_nearest_key(caplog):
    for _ in range(3):
        Config.read({**V2, "pollExceptionLimits": 5, "client": {"tls": {"verfy": True}}, "zzz": 1})
    assert [record.getMessage() for record in caplog.records] == [
        "unknown configuration key $.pollExceptionLimits; did you mean pollExceptionLimit?",
        "unknown configuration key $.client.tls.verfy; did you mean verify?",
        "unknown configuration key $.zzz",
    ]
    assert {record.name for record in caplog.records} == {"webchat_fsm"}


def test_user_interface_keys_are_ignored_with_any_value(caplog):
    Config.read({**V2, **dict.fromkeys(UI_KEYS, object())})
    assert caplog.records == []


def test_reprs_mask_secrets():
    given = {
        **V2,
        "apikey": SECRET,
        "userData": {"card": SECRET},
        "client": {
            "headers": {"Authorization": SECRET},
            "proxy": f"http://me:{SECRET}@proxy",
            "tls": {"cert": "c.pem", "keyPassword": SECRET},
        },
    }
    config = Config.read({"webchat": given, "main": {"header": {"X": SECRET}}})
    v3 = Config.read({"transport": {**V3["transport"], "headers": {"x-api-key": SECRET}}})
    assert SECRET not in f"{config!r}{config!s}{config.client!r}{config.client.tls!r}{v3!r}"
    assert "apikey=***" in repr(config)
    assert V2["dataURL"] in repr(config)


@pytest.mark.parametrize("scheme", ["https", "ftp"])
def test_url_with_credentials_is_rejected_without_showing_it(scheme):
    with pytest.raises(ConfigError, match="without credentials") as caught:
        Config.read({"dataURL": f"{scheme}://me:{SECRET}@host/chat"})
    assert SECRET not in str(caught.value)


def test_config_is_frozen():
    with pytest.raises(AttributeError):
        Config.read(V2).apikey = "other"


def test_reading_does_not_change_the_given_mapping():
    given = {"webchat": {**V2, "userData": {"a": 1}}, "main": {"header": {"X": "y"}}}
    Config.read(given)
    assert given == {"webchat": {**V2, "userData": {"a": 1}}, "main": {"header": {"X": "y"}}}


def test_constructing_a_service_does_no_io_and_starts_no_thread(monkeypatch):
    import socket
    import threading

    monkeypatch.setattr(socket, "getaddrinfo", lambda *given: pytest.fail("no I/O before open()"))
    before = threading.active_count()
    WebChatService(V2)
    assert threading.active_count() == before


def test_logger_level_is_not_set():
    assert logging.getLogger("webchat_fsm").level == logging.NOTSET


def test_key_in_another_case_is_logged(caplog):
    Config.read({**V2, "dataurl": "x", "AJAXTIMEOUT": 1})
    assert [record.getMessage() for record in caplog.records] == [
        "unknown configuration key $.dataurl; did you mean dataURL?",
        "unknown configuration key $.AJAXTIMEOUT; did you mean ajaxTimeout?",
    ]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"webchat": {}}, "$.webchat.dataURL"),
        ({"webchat": {**V2, "pollRate": "3"}}, "$.webchat.pollRate"),
        ({"webchat": V2, "main": {"header": {"A": "\n"}}}, "$.main.header"),
        ({"webchat": V2, "main": {"header": {"A": 1}}}, "$.main.header[...]"),
        ({"webchat": {**V2, "userData": {"tier": b"x"}}}, "$.webchat.userData"),
    ],
)
def test_error_path_in_whole_widgets_object_begins_at_root(given, path):
    with pytest.raises(ConfigError) as caught:
        Config.read(given)
    assert caught.value.path == path


def test_unsendable_user_data_are_rejected_with_their_path():
    with pytest.raises(
        ConfigError, match=r"^\$.userData: expected what can be sent, but userData.tier is of type bytes$"
    ):
        Config.read({**V2, "userData": {"tier": b"gold"}})
