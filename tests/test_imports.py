"""Test which modules are loaded before they are needed, in fresh interpreters: modules do not depend on the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import webchat_fsm
from webchat_fsm._cli import COMMANDS

ROOT = Path(webchat_fsm.__file__).parent.parent
DEPENDENCIES = {"msgspec", "transitions", "urllib3"}
BASE = {"webchat_fsm", "webchat_fsm._package"}


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> str:
    """Run Python with arguments; return its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def loaded_by(code: str) -> set[str]:
    """Return the modules that are loaded after some code, in a fresh interpreter."""
    return set(run("-c", f"{code}\nimport sys\nprint(*sys.modules)").splitlines()[-1].split())


def own(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "webchat_fsm"}


UNUSED = """
import sys

def test_it(request):
    plugin = request.config.pluginmanager.get_plugin("webchat_fsm.testing._plugin")
    print("hooks:", *sorted(hook.name for hook in request.config.pluginmanager.get_hookcallers(plugin)))
    print("fixtures:", *request.fixturenames)
    print("modules:", *sys.modules)
"""


def test_plugin_that_no_test_uses_loads_next_to_nothing(tmp_path):
    (tmp_path / "test_it.py").write_text(UNUSED, encoding="utf-8")
    line = ["-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-p", "webchat_fsm.testing._plugin", "test_it.py"]
    output = run(*line, cwd=tmp_path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    seen = {head: set(rest.split()) for head, _, rest in (line.partition(":") for line in output.splitlines())}
    assert own(seen["modules"]) == {*BASE, "webchat_fsm.testing", "webchat_fsm.testing._plugin"}
    assert not seen["modules"] & DEPENDENCIES
    assert seen["fixtures"] == {"request"}
    assert seen["hooks"] == {"pytest_addoption", "pytest_configure"}  # neither is called for each test


@pytest.mark.parametrize("package", ["webchat_fsm", "webchat_fsm.testing"])
def test_package_alone_loads_none_of_its_modules(package):
    loaded = loaded_by(f"import {package}")
    assert own(loaded) == {*BASE, package}
    assert not loaded & DEPENDENCIES


LAZY = {
    "webchat_fsm._bayeux.matcher", "webchat_fsm._bayeux.socket", "webchat_fsm._runtime.bus",
    "webchat_fsm._runtime.cookies", "webchat_fsm._runtime.websocket", "webchat_fsm._wire.cometd",
    "webchat_fsm._wire.nexus_v3", "webchat_fsm.diagram", "webchat_fsm.server", "webchat_fsm.testing",
    "difflib", "http.cookiejar", "pickle", "urllib.request", "websockets",
}  # fmt: skip
"""Modules of which a chat by polling over v2 uses none."""

V3 = {"type": "pureengage-v3-rest", "dataURL": "http://chat.test/v3", "endpoint": "e", "headers": {"x-api-key": "k"}}
COMETD = {"enabled": True, "cometURL": "http://chat.test/cometd", "apiURL": "http://chat.test/files"}
USED = {
    "webchat_fsm.WebChatService({'dataURL': 'http://chat.test/v2'})": set(),
    "webchat_fsm.WebChatService({'dataURL': 'http://chat.test/v2', 'xhrFields': {'withCredentials': True}})": {
        "webchat_fsm._runtime.cookies", "http.cookiejar", "urllib.request",
    },
    f"webchat_fsm.WebChatService({{'transport': {V3}}})": {"webchat_fsm._wire.nexus_v3"},
    f"webchat_fsm.WebChatService({{'cometD': {COMETD}}})": {
        "webchat_fsm._wire.cometd", "webchat_fsm._runtime.cookies", "http.cookiejar", "urllib.request",
    },
    "webchat_fsm.Bus()": {"webchat_fsm._runtime.bus"},
    "typing.get_type_hints(webchat_fsm.WebChatService.mount)": {"webchat_fsm._runtime.bus"},
}  # fmt: skip
"""Those that some code does use."""


def test_dependencies_load_none_of_the_lazy_modules():
    found = loaded_by("import transitions, urllib3, msgspec") & LAZY
    assert found == set(), "a guard of modules that are loaded in any case would be no guard of this package"


POLLED = [code for code in USED if code.startswith("webchat_fsm.WebChatService") and COMETD["cometURL"] not in code]


@pytest.mark.parametrize("code", POLLED)
def test_chat_that_polls_loads_nothing_of_chats_that_are_pushed(code):
    loaded = own(loaded_by(f"import webchat_fsm\n{code}"))
    assert not {name for name in loaded if name.startswith("webchat_fsm._bayeux")}
    assert not loaded & {"webchat_fsm._core.pushed", "webchat_fsm._core.exchange"}


@pytest.mark.parametrize("code", USED)
def test_module_is_loaded_only_where_it_is_used(code):
    assert loaded_by(f"import typing, webchat_fsm\n{code}") & LAZY == USED[code]


DEAR = """
import collections
import re
import sys
import msgspec, transitions, urllib3
made = []

def note(kind, function):
    def noted(*args, **kwargs):
        if sys._getframe(1).f_globals["__name__"].startswith(("webchat_fsm", "typing")):
            made.append((kind, args[0]))
        return function(*args, **kwargs)

    return noted

collections.namedtuple = note("named tuple", collections.namedtuple)
re.compile = note("regular expression", re.compile)
import webchat_fsm
webchat_fsm.WebChatService({"dataURL": "http://chat.test/v2"})
print("made:", *made)
"""


def test_first_service_makes_no_named_tuple_and_no_expression():
    assert run("-c", DEAR).splitlines()[-1] == "made:"


CLI = BASE | {"webchat_fsm._cli", "webchat_fsm._cli.command", "webchat_fsm._errors"}


@pytest.mark.parametrize("option", ["--help", "--version", "nonsense"])
def test_command_line_without_command_loads_no_chat(option):
    loaded = loaded_by(f"from webchat_fsm._cli import main\nmain([{option!r}])")
    assert own(loaded) == CLI
    assert not loaded & DEPENDENCIES


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_only_its_module(command):
    modules = {f"webchat_fsm._cli.{name}" for name in ("chat", "demo", "lifecycle", "replay", "serve")}
    loaded = loaded_by(f"from webchat_fsm._cli import main\nmain([{command!r}, '--help'])")
    own_module = "lifecycle" if command in ("table", "diagram", "docs") else command
    assert loaded & modules == {f"webchat_fsm._cli.{own_module}"}


NO_CONTEXT = """
import ssl
ssl.create_default_context = None
import webchat_fsm
webchat_fsm.WebChatService({"dataURL": "https://chat.test/v2"})
"""


def test_tls_settings_are_not_made_before_a_connection():
    run("-c", NO_CONTEXT)


FREEZES = {
    "freezegun": "import freezegun; freeze = freezegun.freeze_time('2024-01-01')",
    "time-machine": "import time_machine; freeze = time_machine.travel(1_700_000_000, tick=False)",
}
FIRST_USE = """
import webchat_fsm.testing
with freeze, webchat_fsm.testing.Timeline.frozen() as timeline:
    server = webchat_fsm.testing.TestServer(timeline)
    chat = server.client()
    chat.open()
    chat.start_chat(nickname="Jonny")
    timeline.advance(60)
    print(chat.state, timeline.now() - timeline.clock.wall())
    server.close()
import datetime, time
from webchat_fsm._runtime import clock
print(clock.datetime is datetime.datetime, clock.time.time() - time.time() < 1, clock.monotonic() < clock.monotonic())
"""


@pytest.mark.parametrize("library", FREEZES)
def test_first_use_may_be_under_a_freeze(library):
    assert run("-c", f"{FREEZES[library]}\n{FIRST_USE}").splitlines() == ["polling 0.0", "True True True"]


def test_part_of_the_package_that_is_not_imported_is_named():
    printed = run("-c", "import webchat_fsm\ntry: webchat_fsm.testing\nexcept AttributeError as error: print(error)")
    assert "has no attribute 'testing': import webchat_fsm.testing first" in printed
