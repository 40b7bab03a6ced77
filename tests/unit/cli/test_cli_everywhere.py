"""What holds for all commands: streams, exit codes, errors, help, late imports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fake_node import Refused
from fleetfn_cli import app, main, session
from samples_of_control import INFO, STATUS


def commands(tree=None, above=()):
    tree = tree or app.tree()
    for command in tree.registered_commands:
        yield (*above, command.name)
    for group in tree.registered_groups:
        yield from commands(group.typer_instance, (*above, group.name))


COMMANDS = sorted(commands())


def test_the_commands_are_these():
    assert {" ".join(each) for each in COMMANDS} == {
        "new", "check", "up", "down", "dev", "deploy", "diff", "export", "certificates", "list", "describe", "invoke",
        "send", "logs", "revisions",
        "rollback", "delete", "pause", "resume", "dlq list", "dlq show", "dlq redrive", "dlq discard",
        "trigger fire", "state list", "state get",
        "version", "build", "run", "builder create",
    }  # fmt: skip


def test_a_word_brings_its_own_family_alone():
    for words in app.FAMILIES.values():
        for word in words:
            assert {first for first, *_ in commands(app.tree(word))} == set(words)
    for word in ("", "lits", "-n"):
        assert sorted(commands(app.tree(word))) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_examples(fn, command):
    said = fn(*command, "--help")
    assert said.status == 0
    assert f"Usage: fn {' '.join(command)}" in said.out
    assert f"  fn {' '.join(command)}" in said.out.partition("Examples:")[2]
    assert said.err == ""


def test_fn_alone_helps(fn):
    said = fn()
    assert (said.status, said.err) == (0, "")
    assert "First steps:" in said.out


@pytest.mark.parametrize(
    ("line", "problem", "hint"),
    [
        (["lits"], "No such command 'lits'", "fn --help"),
        (["list", "--foo"], "No such option: --foo", "fn list --help"),
        (["describe"], "Missing argument", "fn describe --help"),
        (["list", "-o", "xml"], "'xml'", "fn list --help"),
        (["send", "f", "--count", "0", "--data", "1"], "--count", "fn send --help"),
        (["dlq", "show", "x"], "'x'", "fn dlq show --help"),
        (["-n", "../x", "list"], "'../x' cannot name a node", "lower-case"),
    ],
)
def test_wrong_usage_exits_2_with_a_hint(fn, line, problem, hint):
    said = fn(*line)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("Error: ")
    assert problem in said.err
    assert hint in said.err.partition("\n\nHint: ")[2]


NEED_NODE = [
    ["list"], ["describe", "f"], ["logs", "f"], ["invoke", "f"], ["send", "f", "--data", "1"], ["pause", "f"],
    ["resume", "f"], ["revisions", "f"], ["rollback", "f"], ["delete", "f", "--yes"], ["dlq", "list"],
    ["dlq", "show", "1"], ["dlq", "discard", "1", "--yes"], ["dlq", "redrive", "1"], ["trigger", "fire", "f"],
    ["state", "list", "f"], ["state", "get", "f", "k"],
]  # fmt: skip


@pytest.mark.parametrize("line", NEED_NODE, ids=" ".join)
def test_without_a_node_commands_say_how_to_start_it(fn, line):
    said = fn("-n", "bench", *line)
    assert (said.status, said.out) == (1, "")
    assert said.err == "Error: node 'bench' is not running\n\nHint: Start it: fn up -n bench\n"


@pytest.mark.parametrize("line", NEED_NODE, ids=" ".join)
def test_a_refusal_is_told_in_full(fn, node, line):
    for asked in ("GET", "POST", "DELETE"):
        for path in ("", "/f", "/f/logs", "/f/invoke", "/f/send", "/f/pause", "/f/resume", "/f/revisions"):
            node.answers[asked, f"/v1/functions{path}"] = Refused(
                404, "no function 'f'", "functions here: battery-alert"
            )
        for path in ("/v1/functions/f/rollback", "/v1/functions/f/state", "/v1/functions/f/state/k"):
            node.answers[asked, path] = Refused(404, "no function 'f'", "functions here: battery-alert")
        for path in ("/v1/dlq", "/v1/dlq/1", "/v1/dlq/discard", "/v1/dlq/redrive"):
            node.answers[asked, path] = Refused(404, "no function 'f'", "functions here: battery-alert")
    said = fn(*line)
    assert (said.status, said.out) == (1, "")
    assert "Error: no function 'f'\n\nHint: " in said.err
    assert "unctions here: battery-alert" in said.err


@pytest.mark.parametrize("before", [True, False])
def test_shared_options_stand_before_or_after_the_command(fn, node, before):
    node.answers["GET", "/v1/functions"] = [STATUS]
    said = fn("-o", "json", "list") if before else fn("list", "-o", "json")
    assert json.loads(said.out)[0]["name"] == "battery-alert"


def test_shared_options_have_variables(fn, node, monkeypatch):
    node.answers["GET", "/v1/functions"] = [STATUS]
    monkeypatch.setenv("FN_OUTPUT", "yaml")
    assert yaml.safe_load(fn("list").out)[0]["name"] == "battery-alert"
    assert json.loads(fn("list", "-o", "json").out)
    monkeypatch.setenv("FN_NODE", "bench")
    assert "node 'bench' is not running" in fn("list").err


def test_options_of_a_command_have_variables(fn, node, monkeypatch):
    node.answers["GET", "/v1/dlq"] = []
    monkeypatch.setenv("FN_DLQ_LIST_KEY", "V1")
    fn("dlq", "list")
    assert node.last().query["key"] == "V1"


def test_a_bug_is_called_a_bug_and_its_traceback_kept_in_a_file(fn, node, monkeypatch, tmp_path):
    node.answers["GET", "/v1/functions"] = [STATUS]
    monkeypatch.setattr(session.Session, "client", lambda _: {}["no such key"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = fn("list")
    assert (said.status, said.out) == (1, "")
    assert "KeyError: 'no such key'" in said.err
    assert "Traceback" not in said.err
    path = said.err.rpartition("report it with: ")[2].strip()
    assert "Traceback" in Path(path).read_text()
    assert "Traceback" in fn("list", "--debug").err


def test_debug_shows_the_traceback_of_an_error_too(fn):
    assert "Traceback" not in fn("list").err
    said = fn("--debug", "list")
    assert "Traceback" in said.err
    assert "Error: node 'default' is not running" in said.err


@pytest.mark.parametrize(("raised", "status"), [(KeyboardInterrupt, 130), (BrokenPipeError, 141)])
def test_ctrl_c_and_a_closed_pipe_are_quiet(fn, monkeypatch, raised, status):
    def client(self):
        raise raised

    monkeypatch.setattr(session.Session, "client", client)
    monkeypatch.setattr(main, "_forget_stdout", lambda: None)
    said = fn("list")
    assert (said.status, said.out, said.err.strip()) == (status, "", "")


def test_a_missing_extra_is_named(fn, monkeypatch):
    def client(self):
        raise ModuleNotFoundError("No module named 'uvloop'", name="uvloop")

    monkeypatch.setattr(session.Session, "client", client)
    said = fn("list")
    assert said.status == 1
    assert "needs the module 'uvloop'" in said.err
    assert "pip install 'fleetfn[node]'" in said.err


BASE_ONLY = """
import sys

class Missing:
    names = {"uvicorn", "uvloop", "httptools", "prometheus_client", "fastapi", "starlette", "httpx", "watchfiles"}
    names |= {"confluent_kafka"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def test_without_extras_all_but_a_node_works(tmp_path):
    """As after `pip install fleetfn` alone."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "sitecustomize.py").write_text(BASE_ONLY)

    def run(*line):
        return subprocess.run(
            [sys.executable, "-m", "fleetfn_cli", *line],
            env={**os.environ, "PYTHONPATH": str(tmp_path / "base")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    assert run("new", "tyre-alert").returncode == 0
    assert run("check", "tyre-alert").returncode == 0
    assert "not running" in run("version").stdout
    for line in (["up"], ["deploy", "tyre-alert"], ["dev", "tyre-alert"]):
        done = run(*line)
        assert (done.returncode, done.stdout) == (1, "")
        assert "pip install 'fleetfn[node]'" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "node").exists()


def test_a_closed_pipe_of_a_real_process_is_quiet():
    line = f"{sys.executable} -m fleetfn_cli --help | head -c 10; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=180, check=False)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip() in {"0", "141"}


def test_commands_that_only_ask_import_nothing_heavy(node):
    node.answers["GET", "/v1/functions"] = [STATUS]
    node.answers["GET", "/v1/node"] = INFO
    heavy = ["asyncio", "fastapi", "httpx", "uvicorn", "uvloop", "confluent_kafka"]
    heavy += ["pydantic", "rich.console", "rich.table", "yaml", "tarfile"]
    for line in ([], ["version"], ["list"], ["list", "-o", "json"]):
        script = (
            "import sys\nfrom fleetfn_cli import main\n"
            f"assert main.run({line!r}) == 0\n"
            f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, check=True)
        assert done.stderr.splitlines()[-1] == "[]", line
