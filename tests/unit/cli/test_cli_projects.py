"""new, check: a folder from nothing to fine; and all that can be wrong with one."""

import json
import os
import subprocess
import sys
import time

import pytest
from fleetfn_cli import checking

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "function.yaml").write_text(FUNCTION)
    (folder / "handler.py").write_text("def hello(name: str) -> str:\n    return name\n")
    return folder


@pytest.mark.parametrize("template", ["alert", "http"])
def test_a_new_function_is_fine_and_its_tests_pass(fn, tmp_path, template):
    said = fn("new", "tyre-alert", "--template", template)
    assert said.status == 0
    assert "tyre-alert/function.yaml" in said.out.splitlines()
    assert "cd tyre-alert" in said.err
    assert "{{" not in "".join(path.read_text() for path in (tmp_path / "tyre-alert").rglob("*") if path.is_file())
    assert fn("check", "tyre-alert").status == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"],
        cwd=tmp_path / "tyre-alert",
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_new_writes_where_it_is_told(fn, tmp_path):
    assert fn("new", "tyre-alert", "--folder", "a/b").status == 0
    assert (tmp_path / "a" / "b" / "handler.py").exists()


def test_new_leaves_a_folder_alone_that_holds_something(fn, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    said = fn("new", "tyre-alert", "--folder", "full")
    assert said.status == 2
    assert "not empty" in said.err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["Tyre", "1st", "a b", "../x"])
def test_new_refuses_names_that_no_function_can_have(fn, name):
    said = fn("new", name)
    assert said.status == 2
    assert "cannot name a function" in said.err


def test_check_says_what_is_fine(fn, folder):
    said = fn("check", folder)
    assert (said.status, said.out) == (0, "hello is fine for environment local: triggers web (http)\n")
    assert json.loads(fn("check", folder, "-o", "json").out)["triggers"] == ["web"]


def test_check_tells_all_problems_with_their_places(fn, folder):
    (folder / "function.yaml").write_text(
        FUNCTION.replace("path: /hello", "paht: /hello").replace("name: hello", "name: Hello")
    )
    said = fn("check", folder)
    assert (said.status, said.out) == (1, "")
    assert said.err.count("function.yaml:") >= 2
    assert "function.yaml:3:" in said.err
    assert "function.yaml:7:" in said.err


def test_check_names_the_users_own_line_of_a_bad_signature(fn, folder):
    (folder / "handler.py").write_text("from fleetfn import State\n\n\ndef hello(state: State[dict]) -> None: ...\n")
    said = fn("check", folder)
    assert said.status == 1
    assert "handler.py:4" in said.err
    assert "Traceback" not in said.err


def test_check_tells_the_problems_of_every_handler(fn, folder):
    (folder / "function.yaml").write_text(
        FUNCTION + "  - {name: two, handler: other:two, http: {path: /two}}\n"
        "  - {name: three, handler: third:three, http: {path: /three}}\n"
    )
    (folder / "other.py").write_text("1 / 0\ndef two(): ...\n")
    (folder / "third.py").write_text("import nowhere_to_be_found\ndef three(): ...\n")
    said = fn("check", folder)
    assert "other.py:1" in said.err
    assert "nowhere_to_be_found" in said.err


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os; os._exit(3)", "exit status 3"),
        ("import sys; sys.exit('bye')", "bye"),
    ],
    ids=["crash", "exit", "sys.exit"],
)
def test_a_handler_that_ends_its_process_takes_only_that(fn, folder, code, told):
    (folder / "handler.py").write_text(f"{code}\ndef hello(name: str): ...\n")
    said = fn("check", folder)
    assert said.status == 1
    assert told in said.err


def test_a_handler_that_never_ends_is_ended(fn, folder, monkeypatch):
    monkeypatch.setattr(checking, "IMPORT_LIMIT", 1.5)
    (folder / "handler.py").write_text("import time\ntime.sleep(600)\ndef hello(name: str): ...\n")
    begin = time.monotonic()
    said = fn("check", folder)
    assert time.monotonic() - begin < 300  # it would have slept longer
    assert "did not end within" in said.err


def test_what_a_handler_prints_while_imported_stays_out_of_the_result(fn, folder):
    (folder / "handler.py").write_text("print('noise')\ndef hello(name: str): ...\n")
    assert "noise" not in fn("check", folder).out


def test_a_missing_module_that_requirements_may_bring_is_a_remark(fn, folder):
    (folder / "handler.py").write_text("import nowhere_to_be_found\ndef hello(name: str): ...\n")
    assert fn("check", folder).status == 1
    (folder / "requirements.txt").write_text("nowhere-to-be-found\n")
    said = fn("check", folder)
    assert said.status == 0
    assert "Warning: the handlers were not checked: they need 'nowhere_to_be_found'" in said.err


def test_secrets_are_not_needed_to_check(fn, folder):
    (folder / "function.yaml").write_text(
        FUNCTION.replace("  triggers:", "  config: {token: {env: NOBODY_HAS_SET_THIS}}\n  triggers:")
    )
    (folder / "handler.py").write_text(
        "from dataclasses import dataclass\nfrom fleetfn import Config\n\n"
        "@dataclass\nclass Keys:\n    token: str\n\ndef hello(name: str, keys: Config[Keys]) -> str: ...\n"
    )
    said = fn("check", folder)
    assert said.status == 0, said.err


ENVIRONMENTS = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Environments
environments:
- {name: local, target: {node: {}}}
- name: bench
  target: {node: {name: bench}}
"""


def test_environments_are_found_upwards_and_chosen_by_name(fn, folder, tmp_path):
    (tmp_path / "environments.yaml").write_text(ENVIRONMENTS)
    assert f"environment bench ({tmp_path}/environments.yaml)" in fn("check", folder, "--env", "bench").out
    said = fn("check", folder, "--env", "prod")
    assert said.status == 2
    assert "It has: local, bench." in said.err


def test_an_environment_that_nobody_wrote_is_wrong_usage(fn, folder):
    said = fn("check", folder, "--env", "prod")
    assert said.status == 2
    assert "no environments.yaml" in said.err


def test_problems_of_both_files_are_told_at_once(fn, folder, tmp_path):
    (tmp_path / "environments.yaml").write_text(ENVIRONMENTS.replace("target: {node: {}}", "taget: {node: {}}"))
    (folder / "function.yaml").write_text(FUNCTION.replace("spec:", "spce:"))
    said = fn("check", folder)
    assert "environments.yaml:4:" in said.err
    assert "function.yaml:" in said.err
