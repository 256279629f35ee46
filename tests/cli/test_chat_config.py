"""Which configuration the arguments of ``chat`` describe."""

from __future__ import annotations

import pytest

from webchat_fsm import Config, ConfigError
from webchat_fsm.cli import parser
from webchat_fsm.cli.chat_config import config_of

KEY = {"WEBCHAT_FSM_API_KEY": "the-key"}
URL = "https://chat.example/there"


def described(*arguments: str, environment=KEY):
    options = parser().parse_args(["chat", "--nickname", "Jonny", "--url", URL, *arguments])
    return config_of(options, environment)


def test_v2_takes_address_key_endpoint_and_headers():
    assert described("--endpoint", "E", "--header", "X-Tenant: blue: 7", "--header", "X-B:c") == {
        "dataURL": URL,
        "apikey": "the-key",
        "endpoint": "E",
        "client": {"headers": {"X-Tenant": "blue: 7", "X-B": "c"}},
    }


def test_without_a_key_and_options_only_the_address_is_configured():
    assert described(environment={}) == {"dataURL": URL}


def test_v3_carries_the_key_as_a_header_unless_one_is_given():
    assert described("--transport", "v3", "--endpoint", "E", "--header", "A: b") == {
        "transport": {
            "type": "pureengage-v3-rest",
            "dataURL": URL,
            "endpoint": "E",
            "headers": {"A": "b", "x-api-key": "the-key"},
        }
    }
    own = described("--transport", "v3", "--endpoint", "E", "--header", "X-API-Key: mine")
    assert own["transport"]["headers"] == {"X-API-Key": "mine"}


def test_v3_can_be_asynchronous():
    config = Config.read(described("--transport", "v3", "--endpoint", "E", "--async"))
    assert config.way == "v3-async"


def test_cometd_takes_three_addresses():
    given = described(
        "--transport", "cometd", "--api-url", "https://files.example", "--channel", "/service/chatV2/sales"
    )
    assert given["cometD"] == {
        "enabled": True,
        "cometURL": URL,
        "apiURL": "https://files.example",
        "channel": "/service/chatV2/sales",
    }
    assert Config.read(given).way == "cometd"


def test_what_is_missing_is_for_the_configuration_to_say():
    with pytest.raises(ConfigError, match=r"\$\.transport\.endpoint"):
        Config.read(described("--transport", "v3"))
    with pytest.raises(ConfigError, match=r"\$\.cometD\.apiURL"):
        Config.read(described("--transport", "cometd"))


def test_proxy_and_authorities_belong_to_the_client_on_every_transport():
    there = ("--proxy", "http://proxy.example:3128", "--ca", "/etc/ca.pem")
    for transport in (("v2",), ("v3", "--endpoint", "E"), ("cometd", "--api-url", URL)):
        client = described("--transport", *transport, *there)["client"]
        assert client == {"proxy": "http://proxy.example:3128", "tls": {"ca": "/etc/ca.pem"}}
