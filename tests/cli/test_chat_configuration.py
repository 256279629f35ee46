"""Test the configuration that the arguments of ``chat`` describe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from webchat_fsm import Config, ConfigError
from webchat_fsm._cli import parser
from webchat_fsm._cli.chat import config_of, with_option_name

KEY = {"WEBCHAT_FSM_API_KEY": "the-key"}
URL = "https://chat.example/there"


def config_from(*arguments: str, environment=KEY):
    options = parser().parse_args(["chat", "--nickname", "Jonny", "--url", URL, *arguments])
    return config_of(options, environment)


def test_v2_config_has_url_key_endpoint_and_headers():
    assert config_from("--endpoint", "E", "--header", "X-Tenant: blue: 7", "--header", "X-B:c") == {
        "dataURL": URL,
        "apikey": "the-key",
        "endpoint": "E",
        "client": {"headers": {"X-Tenant": "blue: 7", "X-B": "c"}},
    }


def test_config_without_options_has_only_the_url():
    assert config_from(environment={}) == {"dataURL": URL}


def test_v3_key_becomes_a_header_unless_one_is_given():
    assert config_from("--transport", "v3", "--endpoint", "E", "--header", "A: b") == {
        "transport": {
            "type": "pureengage-v3-rest",
            "dataURL": URL,
            "endpoint": "E",
            "headers": {"A": "b", "x-api-key": "the-key"},
        }
    }
    own = config_from("--transport", "v3", "--endpoint", "E", "--header", "X-API-Key: mine")
    assert own["transport"]["headers"] == {"X-API-Key": "mine"}


def test_async_option_selects_v3_async():
    config = Config.read(config_from("--transport", "v3", "--endpoint", "E", "--async"))
    assert config.way == "v3-async"


def test_cometd_config_has_urls_and_channel():
    given = config_from(
        "--transport", "cometd", "--api-url", "https://files.example", "--channel", "/service/chatV2/sales"
    )
    assert given["cometD"] == {
        "enabled": True,
        "cometURL": URL,
        "apiURL": "https://files.example",
        "channel": "/service/chatV2/sales",
    }
    assert Config.read(given).way == "cometd"


def test_missing_option_is_a_config_error():
    with pytest.raises(ConfigError, match=r"\$\.transport\.endpoint"):
        Config.read(config_from("--transport", "v3"))
    with pytest.raises(ConfigError, match=r"\$\.cometD\.apiURL"):
        Config.read(config_from("--transport", "cometd"))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--async",), "--async: expected --transport v3, got v2"),
        (("--transport", "v3", "--api-url", URL), "--api-url: expected --transport cometd, got v3"),
        (("--channel", "/service/chatV2/sales"), "--channel: expected --transport cometd, got v2"),
    ],
)
def test_option_of_another_transport_raises_config_error(arguments, error):
    with pytest.raises(ConfigError, match=f"^{error}$"):
        config_from(*arguments)


def test_proxy_and_ca_are_client_options_on_every_transport():
    there = ("--proxy", "http://proxy.example:3128", "--ca", "/etc/ca.pem")
    for transport in (("v2",), ("v3", "--endpoint", "E"), ("cometd", "--api-url", URL)):
        client = config_from("--transport", *transport, *there)["client"]
        assert client == {"proxy": "http://proxy.example:3128", "tls": {"ca": "/etc/ca.pem"}}


def test_other_options_override_the_config_option(tmp_path):
    further = {"dataURL": "https://elsewhere.example", "pollRateMax": 1000, "client": {"headers": {"A": "a"}}}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(further), encoding="utf-8")
    for given in (json.dumps(further), str(file)):
        assert config_from("--config", given, "--proxy", "http://proxy.example:3128", "--header", "B: b") == {
            "dataURL": URL,
            "apikey": "the-key",
            "pollRateMax": 1000,
            "client": {"headers": {"A": "a", "B": "b"}, "proxy": "http://proxy.example:3128"},
        }


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("/nowhere/a file.json", ": /nowhere/a file.json: No such file or directory"),
        ("apikey: s3cret", ": No such file or directory"),
        ('["s3cret"]', ", got a JSON list"),
        ('"s3cret', ", got invalid JSON"),
        ('{"apikey": "s3cret"', ", got invalid JSON"),
        ("{" + '"s3cret": {' * 100_000, ", got invalid JSON"),
        ("list.json", ", got a JSON list"),
        ("bytes.json", ", got invalid JSON"),
    ],
)
def test_unreadable_config_option_exits_with_2_without_secrets(tmp_path, monkeypatch, capsys, given, error):
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text('["s3cret"]', encoding="utf-8")
    Path("bytes.json").write_bytes(b"\xff")
    with pytest.raises(SystemExit) as ended:
        config_from("--config", given)
    assert ended.value.code == 2
    complaint = capsys.readouterr().err.partition("error: ")[2]
    assert complaint == f"argument --config: expected a JSON object or the name of a JSON file{error}\n"


def test_options_are_set_in_webchat_of_a_widgets_object():
    further = {"webchat": {"dataURL": "https://elsewhere.example", "pollRateMax": 1000}, "main": {"header": {"A": "a"}}}
    given = config_from("--config", json.dumps(further), "--proxy", "http://proxy.example:3128")
    config = Config.read(given)
    assert (config.data_url, config.apikey, config.poll_rate_max) == (URL, "the-key", 1000)
    assert (config.main_header, config.client.proxy) == ({"A": "a"}, "http://proxy.example:3128")


@pytest.mark.parametrize(
    ("further", "error"),
    [
        ({"transport": {"dataURL": "https://elsewhere.example"}}, "transport: expected --transport v3, got v2"),
        ({"webchat": {"cometD": {"enabled": True}}}, "cometD.enabled: expected --transport cometd, got v2"),
    ],
)
def test_config_selecting_another_transport_is_rejected(further, error):
    with pytest.raises(ConfigError, match=f"^--config: {error}$"):
        config_from("--config", json.dumps(further))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--transport", "cometd"), "$.cometD.apiURL (--api-url): expected an http(s) URL, got ''"),
        (("--transport", "v3"), "$.transport.endpoint (--endpoint): is required: the endpoint of the v3 API"),
        (("--config", '{"webchat": {}}', "--url", "x"), "$.webchat.dataURL (--url): expected an http(s) URL, got 'x'"),
        (("--config", '{"pollRate": 1}'), "$.pollRate: expected a number of at least 100, got 1"),
    ],
)
def test_config_error_names_the_option(arguments, error):
    with pytest.raises(ConfigError) as caught:
        Config.read(config_from(*arguments))
    assert str(with_option_name(caught.value)) == error
