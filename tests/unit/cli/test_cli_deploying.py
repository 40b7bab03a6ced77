"""deploy, revisions, rollback, delete, and what up, down, version say of a node that is there or not."""

import io
import json
import tarfile

import msgspec
import pytest
from fake_node import Lines, Refused
from fleetfn_spec.control import Change, DeployLine, FunctionStatus, Plan, Refusal, RevisionInfo
from samples_of_control import INFO, OLD, REVISION, STATUS

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: battery-alert}
spec:
  handler: handler:watch
  triggers:
  - {name: telemetry, key: data.vehicle, kafka: {topic: vehicle.telemetry}}
  - {name: show, key: path.vehicle, http: {path: "/battery/{vehicle}", methods: [GET]}}
"""

DEPLOY = ("POST", "/v1/functions")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "function.yaml").write_text(FUNCTION)
    (folder / "handler.py").write_text("def watch(reading: dict | None) -> None: ...\n")
    return folder


@pytest.fixture
def node(node):
    node.answers["GET", "/v1/node"] = INFO
    node.answers["GET", "/v1/functions/battery-alert"] = STATUS
    node.answers["GET", "/v1/functions/battery-alert/revisions"] = [REVISION, OLD]
    return node


def test_deploy_tells_steps_on_stderr_and_the_revision_on_stdout(fn, node, folder):
    node.answers[DEPLOY] = Lines([DeployLine(step="importing the handlers"), DeployLine(revision=REVISION)])
    said = fn("deploy", folder)
    assert said.status == 0, said.err
    assert said.out == ("battery-alert revision 2 (a1b2c3d4e5f6) serves\n  http://127.0.0.1:8080/battery/{vehicle}\n")
    assert "importing the handlers" in said.err
    for command in (
        "fn send battery-alert --data",
        "fn describe battery-alert",
        "fn logs battery-alert -f",
        "curl http",
    ):
        assert command in said.err
    head, _, archive = node.last("POST").body.partition(b"\n")
    assert json.loads(head)["environment"]["name"] == "local"
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["function.yaml", "handler.py"]


def test_deploy_as_data(fn, node, folder):
    node.answers[DEPLOY] = Lines([DeployLine(revision=REVISION)])
    assert msgspec.json.decode(fn("deploy", folder, "-o", "json").out, type=RevisionInfo) == REVISION


def test_what_is_wrong_here_never_reaches_the_node(fn, node, folder):
    (folder / "handler.py").write_text("1 / 0\n")
    said = fn("deploy", folder)
    assert (said.status, said.out) == (1, "")
    assert "handler.py" in said.err
    assert node.asked == []


def test_a_refusal_of_the_node_shows_all_its_problems(fn, node, folder):
    refusal = Refusal("the new worker is not ready", "mend it", ["handler.py:3: no module named 'x'"])
    node.answers[DEPLOY] = Lines([DeployLine(step="importing"), DeployLine(refusal=refusal)])
    said = fn("deploy", folder)
    assert (said.status, said.out) == (1, "")
    assert "Error: the new worker is not ready\n  handler.py:3: no module named 'x'\n\nHint: mend it" in said.err


def test_dry_run_prints_what_would_change(fn, node, folder):
    changes = [Change("spec.timeout", "30s", "5s"), Change("spec.returns", None, "alerts")]
    node.answers[DEPLOY] = Lines(
        [DeployLine(plan=Plan(name="battery-alert", digest="c" * 64, serving=REVISION.digest, changes=changes))]
    )
    said = fn("deploy", folder, "--dry-run")
    assert said.status == 0
    assert said.out.splitlines() == [
        "battery-alert: a1b2c3d4e5f6 -> cccccccccccc",
        '  spec.timeout  "30s" -> "5s"',
        '  spec.returns  - -> "alerts"',
    ]
    assert json.loads(node.last("POST").body.partition(b"\n")[0])["dry_run"] is True


@pytest.mark.parametrize("option", ["--no-start", "--dry-run"])
def test_deploy_starts_no_node_where_that_is_forbidden(fn, folder, option):
    said = fn("deploy", folder, option)
    assert said.status == 1
    assert "node 'default' is not running" in said.err
    assert "fn up" in said.err


def test_no_wait_leaves_the_rest_to_the_node(fn, node, folder):
    node.answers[DEPLOY] = Lines([DeployLine(step="reading the source")])
    said = fn("deploy", folder, "--no-wait")
    assert (said.status, said.out) == (0, "battery-alert: the node has begun\n")
    node.answers[DEPLOY] = Lines([DeployLine(refusal=Refusal("a deploy is under way"))])
    assert fn("deploy", folder, "--no-wait").status == 1


def test_the_environment_names_the_node_and_its_file_is_told(fn, node, folder, tmp_path):
    (tmp_path / "environments.yaml").write_text(
        "apiVersion: fleetfn.dev/v1alpha1\nkind: Environments\nenvironments:\n"
        "- {name: bench, target: {node: {name: bench}}}\n"
    )
    said = fn("deploy", folder, "--env", "bench", "--no-start")
    assert f"environment bench of {tmp_path}/environments.yaml" in said.err
    assert "node 'bench' is not running" in said.err


def test_revisions_are_listed_newest_first(fn, node):
    said = fn("revisions", "battery-alert")
    assert [line.split()[0] for line in said.out.splitlines()] == ["NUMBER", "2", "1"]
    assert said.out.splitlines()[1].endswith("serves")
    assert "fn rollback battery-alert" in said.err


@pytest.mark.parametrize(
    ("named", "digest"), [([], None), (["1"], OLD.digest), (["bbbb"], OLD.digest), ([REVISION.digest], REVISION.digest)]
)
def test_rollback_takes_a_number_or_first_digits(fn, node, named, digest):
    node.answers["POST", "/v1/functions/battery-alert/rollback"] = Lines(
        [DeployLine(step="starting"), DeployLine(revision=REVISION)]
    )
    assert fn("rollback", "battery-alert", *named).status == 0
    assert node.last().json() == {"digest": digest}


def test_rollback_to_an_unknown_revision_lists_the_known(fn, node):
    said = fn("rollback", "battery-alert", "9")
    assert said.status == 2
    assert "It has: 2 a1b2c3d4e5f6, 1 bbbbbbbbbbbb." in said.err


def test_delete_says_first_what_becomes_of_everything(fn, node):
    node.answers["DELETE", "/v1/functions/battery-alert"] = None
    said = fn("delete", "battery-alert", "--yes")
    assert (said.status, said.out) == (0, "deleted battery-alert\n")
    for part in ("state, marks and unsent emits  deleted", "dead letters                   1 deleted", "offsets"):
        assert part in said.err
    assert node.last().query == {"state": "delete"}
    said = fn("delete", "battery-alert", "--yes", "--keep-state")
    assert "dead letters                   1 kept for a function of this name" in said.err
    assert node.last().query == {"state": "keep"}


def test_delete_changes_nothing_unasked(fn, node):
    assert fn("delete", "battery-alert").status == 2
    assert [asked.method for asked in node.asked] == ["GET"]


def test_up_says_that_a_node_is_up_already(fn, node, tmp_path):
    node.answers["GET", "/v1/node"] = msgspec.structs.replace(INFO, data=str(tmp_path / "node"))
    said = fn("up")
    assert said.status == 0
    assert "is up already" in said.err
    assert "pid 4711" in said.out
    assert "fn down" in said.err


def test_up_refuses_a_node_of_this_name_with_other_data(fn, node):
    said = fn("up")
    assert said.status == 1
    assert "another data folder, /data" in said.err


def test_down_without_a_node_is_fine(fn):
    said = fn("down")
    assert (said.status, said.out) == (0, "")
    assert "is not running" in said.err


def test_version_of_both_sides(fn, node):
    both = json.loads(fn("version", "-o", "json").out)
    assert both["fn"]["api"] == INFO.api
    assert both["node"]["pid"] == 4711
    assert "http://127.0.0.1:8080" in fn("version").out


def test_version_of_a_node_that_speaks_another_api(fn, node):
    node.api = "2.0"
    said = fn("version")
    assert said.status == 0
    assert "Update fn" in said.out


def test_another_api_is_refused_elsewhere(fn, node):
    node.answers["GET", "/v1/functions"] = Refused(
        426, "fn speaks control API '1.0', the node '2.0': fn is older", "update fn"
    )
    said = fn("list")
    assert said.status == 1
    assert "update fn" in said.err


def test_describe_as_data_is_the_status(fn, node):
    assert msgspec.json.decode(fn("describe", "battery-alert", "-o", "json").out, type=FunctionStatus) == STATUS
