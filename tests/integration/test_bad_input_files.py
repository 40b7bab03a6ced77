"""Folders that cannot be deployed: `fn check` and `fn deploy` say file, line and next step; what serves goes on."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Machine
from running_node import write_function

pytestmark = pytest.mark.node

HELLO = "def hello(name: str) -> str:\n    return 'hello ' + name\n"
SPEC = """
handler: handler:hello
scale: {idle: 2s}
triggers:
- {name: hi, key: null, http: {path: /hello}}
"""
HEAD = "apiVersion: fleetfn.dev/v1alpha1\nkind: Function\nmetadata: {name: hello}\nspec:\n"
BODY = "  handler: handler:hello\n  triggers:\n  - {name: hi, key: null, http: {path: /hello}}\n"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("files"))
    machine.fn("deploy", str(write_function(machine.folder / "hello", HELLO, SPEC)))
    yield machine
    machine.run("down")


def still_serves(machine: Machine) -> None:
    request = urllib.request.Request(f"{machine.url}/hello", b"you", method="POST")  # noqa: S310 - the node's own
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310 - the node's own URL
        assert reply.read() == b"hello you"
    assert [each["number"] for each in machine.json("revisions", "hello")] == [1]


def refused(machine: Machine, *arguments: str) -> str:
    """What `fn` says on stderr; it ends with 1 and without a traceback of its own."""
    done = machine.run(*arguments)
    return told(done)


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, f"{done.args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "bug" not in done.stderr, done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["function.yaml"]),
        (HEAD + BODY + "  tirggers: []\n", ["function.yaml:8", "tirggers", "triggers"]),
        (HEAD + BODY + "  handler: handler:other\n", ["function.yaml:8", "handler", "twice"]),
        (HEAD + BODY.replace("/hello", "hello"), ["function.yaml:7", '"hello"', "/"]),
        (HEAD + BODY + "  timeout: soon\n", ["function.yaml:8", "soon", "30s"]),
        (HEAD + BODY.replace("handler:hello", "handler"), ["function.yaml:5", "handler", "module:callable"]),
        (HEAD.replace("v1alpha1", "v9") + BODY, ["function.yaml:1", "fleetfn.dev/v9", "fleetfn.dev/v1alpha1"]),
        (HEAD.replace("name: hello", "name: Hello World") + BODY, ["function.yaml:3", "Hello World"]),
        (HEAD + BODY.replace("http: {path: /hello}", "mqtt: {topic: a+/b}"), ["function.yaml:7", "mqtt.topic", "a+"]),
        (HEAD + BODY + "  returns: alerts\n", ["function.yaml:8", "alerts", "outputs"]),
        (HEAD + BODY + "  retry: {attempts: 0}\n", ["function.yaml:8", "attempts", "0"]),
        (HEAD + BODY + "  state: {ttl: [1\n", ["function.yaml"]),
        (HEAD + "\t" + BODY, ["function.yaml:5"]),
    ],
    ids=[
        "empty", "unknown key", "key twice", "path", "duration", "no callable", "version", "name", "MQTT topic",
        "unknown output", "range", "no YAML", "tab",
    ],
)  # fmt: skip
def test_a_broken_function_yaml_is_told_with_its_line(
    serving: Machine, tmp_path: Path, text: str, said: list[str]
) -> None:
    folder = write_function(tmp_path / "broken", HELLO, SPEC)
    (folder / "function.yaml").write_text(text)
    error = refused(serving, "check", str(folder))
    for part in said:
        assert part in error, error


def test_every_problem_is_told_at_once(serving: Machine, tmp_path: Path) -> None:
    folder = write_function(tmp_path / "broken", HELLO, SPEC)
    (folder / "function.yaml").write_text(
        HEAD + BODY.replace("/hello", "hello") + "  timeout: soon\n  tirggers: []\n  returns: alerts\n"
    )
    error = refused(serving, "deploy", str(folder))
    for line in (7, 8, 9, 10):
        assert f"function.yaml:{line}" in error
    still_serves(serving)


def test_a_function_yaml_that_is_no_text_is_told(serving: Machine, tmp_path: Path) -> None:
    folder = write_function(tmp_path / "broken", HELLO, SPEC)
    (folder / "function.yaml").write_bytes(b"apiVersion: \xff\xfe\n")
    assert "UTF-8" in refused(serving, "deploy", str(folder))
    (folder / "function.yaml").unlink()
    error = refused(serving, "deploy", str(folder))
    assert str(folder) in error
    assert "fn new" in error
    assert "nowhere" in refused(serving, "deploy", str(tmp_path / "nowhere"))


def test_an_environment_that_is_not_there_names_those_there_are(serving: Machine, tmp_path: Path) -> None:
    folder = write_function(tmp_path / "f", HELLO, SPEC)
    done = serving.run("deploy", str(folder), "--env", "prod")
    assert done.returncode in {1, 2}
    assert "prod" in done.stderr
    (tmp_path / "environments.yaml").write_text(
        "apiVersion: fleetfn.dev/v1alpha1\nkind: Environments\nenvironments:\n"
        "- {name: bench, connections: [{name: k}]}\n"
    )
    error = refused(serving, "deploy", str(folder), "--env", "bench")
    assert "environments.yaml:4" in error


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nunpy\n" + HELLO, ["nunpy", "handler.py:1"]),
        ("import helpers\n" + HELLO, ["no_such_module_of_ours", "helpers.py:2", "requirements.txt"]),
        (HELLO + "\nLIMITS = {}\nhot = LIMITS['hot']\n", ["KeyError", "hot", "handler.py:5"]),
        ("def hello(name: str) -> str:\n    return 'a\n", ["unterminated string", "handler.py:2"]),
        ("def hello(name: str) -> str:\nreturn name\n", ["indent", "handler.py:2"]),
        ("def hallo(name: str) -> str:\n    return ''\n", ["hello", "handler.py"]),
        ("hello = 3\n", ["hello", "int"]),
        ("def hello(name, what: object()) -> str:\n    return ''\n", ["handler.py:1"]),
        ("def hello(a: str, b: str) -> str:\n    return ''\n", ["handler.py:1", "b"]),
        ("from fleetfn import State\ndef hello(n: int, s: State[int]) -> None: ...\n", ["handler.py:2", "key"]),
        ("from fleetfn import Batch\ndef hello(names: Batch[str]) -> None: ...\n", ["Batch", "http", "handler.py:2"]),
    ],
    ids=[
        "missing module", "missing module of a module", "raises", "syntax", "indentation", "no such callable",
        "no callable", "no type", "two payloads", "state without key", "a batch over http",
    ],
)  # fmt: skip
def test_a_handler_that_cannot_be_bound_or_imported_names_the_users_own_line(
    serving: Machine, code: str, said: list[str]
) -> None:
    folder = serving.folder / "hello"
    (folder / "helpers.py").write_text("'''No module of this name exists.'''\nimport no_such_module_of_ours\n")
    (folder / "handler.py").write_text(code)
    try:
        error = refused(serving, "deploy", str(folder))
        for part in said:
            assert part.lower() in error.lower(), error
        assert "site-packages" not in error
        still_serves(serving)
    finally:
        (folder / "handler.py").write_text(HELLO)
        (folder / "helpers.py").unlink()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os\nos._exit(3)\n", "status 3"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "SIGSEGV"),
        ("raise SystemExit('no licence')\n", "no licence"),
    ],
    ids=["exits", "segmentation fault", "SystemExit"],
)
def test_a_handler_that_kills_the_process_while_it_is_imported_leaves_the_old_one(
    serving: Machine, code: str, said: str
) -> None:
    folder = serving.folder / "hello"
    (folder / "handler.py").write_text(code + HELLO)
    try:
        assert said in refused(serving, "deploy", str(folder))
        still_serves(serving)
    finally:
        (folder / "handler.py").write_text(HELLO)


def test_a_handler_that_cannot_be_imported_only_on_the_node_names_the_users_own_line(serving: Machine) -> None:
    """`fn` has the variable, the node has not: what passes here fails there."""
    folder = serving.folder / "hello"
    (folder / "handler.py").write_text("import os\n\nPLACE = os.environ['PLACE_OF_THIS_TERMINAL']\n" + HELLO)
    serving.environ["PLACE_OF_THIS_TERMINAL"] = "1"
    try:
        error = refused(serving, "deploy", str(folder))
        assert "KeyError" in error
        assert "PLACE_OF_THIS_TERMINAL" in error
        assert "handler.py:3" in error
        still_serves(serving)
    finally:
        del serving.environ["PLACE_OF_THIS_TERMINAL"]
        (folder / "handler.py").write_text(HELLO)


def test_config_that_the_handlers_type_refuses_names_the_value(serving: Machine, tmp_path: Path) -> None:
    code = (
        "from dataclasses import dataclass\nfrom fleetfn import Config\n\n@dataclass\nclass Limits:\n    hot: float\n\n"
        "def hello(name: str, limits: Config[Limits]) -> str:\n    return name\n"
    )
    spec = SPEC.replace("/hello", "/limits") + "config: {hot: warm}\n"
    folder = write_function(tmp_path / "limits", code, spec, name="limits")
    error = refused(serving, "deploy", str(folder))
    assert "hot" in error
    assert "float" in error
    assert "warm" in error
    assert serving.run("describe", "limits").returncode == 1
