"""Dapr beside a worker: whose components, how they get their secrets, and that namespaces stay apart."""

import json
from typing import Any

import pytest
from cluster_functions import STATE, deployable, environment, everything, function, plain
from fleetfn_deploy.kubernetes import render, sidecar
from fleetfn_deploy.kubernetes.values import Deployable

HTTP = {"triggers": [{"name": "show", "http": {"path": "/show"}}]}
OUTPUT = HTTP | {"outputs": [{"name": "fleet", "dapr": {"pubsub": "fleet-pubsub", "topic": "alerts"}}]}
PUBSUB = {"name": "fleet-pubsub", "type": "pubsub.redis", "metadata": [{"name": "redisHost", "value": "r:6379"}]}
INJECTED = {"dapr": {"component": "vehicles"}}


def container(made: Deployable) -> dict[str, Any]:
    (found,) = sidecar.container(made)
    return found


def component(made: Deployable, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sidecar.documents(made)[f"dapr-{name}.yaml"])
    return found


@pytest.mark.parametrize(
    ("spec", "place", "mode"),
    [
        pytest.param(HTTP, {}, None, id="nothing of Dapr"),
        pytest.param(HTTP, {"dapr": {}}, None, id="a connection that nothing uses"),
        pytest.param(HTTP, {"state": STATE}, "own", id="state with its component"),
        pytest.param(HTTP, {"state": INJECTED}, "injected", id="state in the cluster's component"),
        pytest.param(OUTPUT, {"dapr": {"components": [PUBSUB]}}, "own", id="outputs with their components"),
        pytest.param(OUTPUT, {"dapr": {}}, "injected", id="outputs by the cluster's components"),
        pytest.param(OUTPUT, {"state": INJECTED}, "injected", id="outputs beside the cluster's state"),
        pytest.param(OUTPUT, {"dapr": {"url": "http://daprd.dapr.svc:3500"}}, None, id="a sidecar elsewhere"),
    ],
)
def test_a_pod_has_the_sidecar_that_it_needs(spec: dict[str, Any], place: dict[str, Any], mode: str | None) -> None:
    made = deployable(function(spec), environment(**place))
    assert sidecar.mode(made) == mode
    assert len(sidecar.container(made)) == (mode == "own")
    assert bool(sidecar.notes(made)) == (mode == "injected")
    assert bool(sidecar.variables(made)) == (mode == "own")


def test_it_is_native_and_listens_to_its_pod_alone() -> None:
    found = container(everything())
    assert found["restartPolicy"] == "Always"
    assert found["image"] == "harbor.example/tools/daprd:1.14.4"
    assert "--dapr-listen-addresses=127.0.0.1" in found["args"]
    assert "--dapr-http-port=3500" in found["args"]
    assert not [each for each in found["args"] if each.startswith("--app-port")]
    assert "startupProbe" not in found


def test_its_app_id_is_the_function_s_name_which_dapr_wants_without_dots() -> None:
    assert "--app-id=battery-alert" in container(everything())["args"]
    assert sidecar.notes(deployable(function(HTTP), environment(state=INJECTED)))["dapr.io/app-id"] == "battery-alert"


def test_components_are_files_of_the_revision() -> None:
    made = everything()
    assert list(sidecar.documents(made)) == ["dapr-fleet-pubsub.yaml", "dapr-vehicles.yaml"]
    (kept,) = [each for each in render.objects(made) if each["metadata"]["name"] == made.revision_name]
    assert sidecar.documents(made).items() <= kept["data"].items()
    (volume,) = sidecar.volumes(made)
    assert volume["configMap"]["name"] == made.revision_name
    assert [each["path"] for each in volume["configMap"]["items"]] == ["fleet-pubsub.yaml", "vehicles.yaml"]


def test_secrets_reach_components_by_variables_of_the_sidecar() -> None:
    made = everything()
    fields = {each["name"]: each for each in component(made, "vehicles")["spec"]["metadata"]}
    named = fields["redisPassword"]["envRef"]
    assert "value" not in fields["redisPassword"]
    given = {each["name"]: each.get("valueFrom") for each in container(made)["env"]}
    assert given[named] == {"secretKeyRef": {"name": "redis", "key": "password"}}
    assert ("redis", "password") not in made.secrets


def test_different_secrets_never_share_a_variable() -> None:
    secrets = ["a/b-c", "a/b_c", "a/b.c", "a-b/c", "a/B.c"]
    fields = [{"name": f"f{i}", "value": {"secret": each}} for i, each in enumerate(secrets)]
    state = {"dapr": {"component": "v", "type": "state.redis", "metadata": fields}}
    made = deployable(function(HTTP), environment(state=state))
    names = [each["envRef"] for each in component(made, "v")["spec"]["metadata"] if "envRef" in each]
    assert len(set(names)) == len(secrets)
    assert all(name.isidentifier() for name in names)


def test_state_is_kept_apart_by_namespace_unless_the_user_says_how() -> None:
    fields = {each["name"]: each.get("value") for each in component(everything(), "vehicles")["spec"]["metadata"]}
    assert fields["keyPrefix"] == "namespace"
    assert {"name": "NAMESPACE", "value": "alerts"} in container(everything())["env"]
    mine = {"dapr": {"component": "v", "type": "state.redis", "metadata": [{"name": "keyPrefix", "value": "none"}]}}
    made = deployable(function(HTTP), environment(state=mine))
    assert component(made, "v")["spec"]["metadata"] == [{"name": "keyPrefix", "value": "none"}]


def test_outputs_components_keep_what_they_are_given() -> None:
    assert component(everything(), "fleet-pubsub")["spec"] == {
        "type": "pubsub.redis",
        "version": "v1",
        "metadata": [{"name": "redisHost", "value": "redis.queues.svc:6379"}],
    }


def test_a_pod_without_it_knows_nothing_of_it() -> None:
    assert sidecar.volumes(plain()) == []
    assert sidecar.documents(plain()) == {}
