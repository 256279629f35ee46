"""Which configuration the arguments of ``chat`` describe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from webchat_fsm import Config, ConfigError
from webchat_fsm.cli import parser
from webchat_fsm.cli.chat_config import by_option, config_of

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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--async",), "--async: is for --transport v3, and this is v2"),
        (("--transport", "v3", "--api-url", URL), "--api-url: is for --transport cometd, and this is v3"),
        (("--channel", "/service/chatV2/sales"), "--channel: is for --transport cometd, and this is v2"),
    ],
)
def test_an_option_that_the_transport_does_not_know_is_wrong_use(arguments, told):
    with pytest.raises(ConfigError, match=f"^{told}$"):
        described(*arguments)


def test_proxy_and_authorities_belong_to_the_client_on_every_transport():
    there = ("--proxy", "http://proxy.example:3128", "--ca", "/etc/ca.pem")
    for transport in (("v2",), ("v3", "--endpoint", "E"), ("cometd", "--api-url", URL)):
        client = described("--transport", *transport, *there)["client"]
        assert client == {"proxy": "http://proxy.example:3128", "tls": {"ca": "/etc/ca.pem"}}


def test_further_keys_lie_below_what_the_other_arguments_say(tmp_path):
    further = {"dataURL": "https://elsewhere.example", "pollRateMax": 1000, "client": {"headers": {"A": "a"}}}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(further), encoding="utf-8")
    for given in (json.dumps(further), str(file)):
        assert described("--config", given, "--proxy", "http://proxy.example:3128", "--header", "B: b") == {
            "dataURL": URL,
            "apikey": "the-key",
            "pollRateMax": 1000,
            "client": {"headers": {"A": "a", "B": "b"}, "proxy": "http://proxy.example:3128"},
        }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("/nowhere/a file.json", "the file /nowhere/a file.json: No such file or directory"),
        ("apikey: s3cret", "No such file or directory"),
        ('["s3cret"]', "it holds no object"),
        ('"s3cret', "it is not valid JSON"),
        ('{"apikey": "s3cret"', "it is not valid JSON"),
        ("{" + '"s3cret": {' * 100_000, "it is not valid JSON"),
        ("list.json", "it holds no object"),
        ("bytes.json", "it is not valid JSON"),
    ],
)
def test_further_keys_that_cannot_be_read_are_wrong_use_and_not_shown(tmp_path, monkeypatch, capsys, given, told):
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text('["s3cret"]', encoding="utf-8")
    Path("bytes.json").write_bytes(b"\xff")
    with pytest.raises(SystemExit) as ended:
        described("--config", given)
    assert ended.value.code == 2
    complaint = capsys.readouterr().err.partition("error: ")[2]
    assert complaint == f"argument --config: expected a JSON object or its file: {told}\n"


def test_options_go_into_the_webchat_object_of_a_whole_widgets_object():
    further = {"webchat": {"dataURL": "https://elsewhere.example", "pollRateMax": 1000}, "main": {"header": {"A": "a"}}}
    given = described("--config", json.dumps(further), "--proxy", "http://proxy.example:3128")
    config = Config.read(given)
    assert (config.data_url, config.apikey, config.poll_rate_max) == (URL, "the-key", 1000)
    assert (config.main_header, config.client.proxy) == ({"A": "a"}, "http://proxy.example:3128")


@pytest.mark.parametrize(
    ("further", "told"),
    [
        ({"transport": {"dataURL": "https://elsewhere.example"}}, "transport is for --transport v3, and this is v2"),
        ({"webchat": {"cometD": {"enabled": True}}}, "cometD.enabled is for --transport cometd, and this is v2"),
    ],
)
def test_a_configuration_that_would_choose_another_transport_is_wrong_use(further, told):
    with pytest.raises(ConfigError, match=f"^--config: {told}$"):
        described("--config", json.dumps(further))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--transport", "cometd"), "$.cometD.apiURL (--api-url): expected an http(s) URL, got ''"),
        (("--transport", "v3"), "$.transport.endpoint (--endpoint): is required: the endpoint of the v3 API"),
        (("--config", '{"webchat": {}}', "--url", "x"), "$.webchat.dataURL (--url): expected an http(s) URL, got 'x'"),
        (("--config", '{"pollRate": 1}'), "$.pollRate: expected a number from 100 to 1e+12, got 1.0"),
    ],
)
def test_what_is_wrong_is_told_with_the_option_that_gives_it(arguments, told):
    with pytest.raises(ConfigError) as caught:
        Config.read(described(*arguments))
    assert str(by_option(caught.value)) == told
