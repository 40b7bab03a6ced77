"""What a function and a gateway are in a cluster: facts of their objects."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml
from cluster_functions import (
    EVERY_TARGET,
    IMAGE,
    STATE,
    deployable,
    environment,
    every_environment,
    everything,
    function,
    installation,
    plain,
)
from fleetfn.errors import TargetError
from fleetfn_builder import gateway_image
from fleetfn_builder.assembly import anatomy
from fleetfn_deploy.kubernetes import containers, render, values, yaml_text
from fleetfn_deploy.kubernetes.values import Deployable
from fleetfn_spec.cluster import HEAD_FILE, LABEL_FUNCTION, LABEL_MANAGED_BY, LABEL_PART, LABEL_REVISION, MANAGER, Head
from fleetfn_spec.environments import LOCAL
from fleetfn_spec.load import read_environments

Object = dict[str, Any]


def of(things: list[Object], kind: str, name: str | None = None) -> Object:
    (found,) = [each for each in things if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found


def kinds(things: list[Object]) -> list[str]:
    return [each["kind"] for each in things]


def pod_of(made: Deployable) -> Object:
    pod: Object = of(render.objects(made), "Deployment")["spec"]["template"]
    return pod


def worker_of(made: Deployable) -> Object:
    (worker,) = pod_of(made)["spec"]["containers"]
    return worker


# all objects


def test_a_function_is_these_objects_in_this_order_the_head_last() -> None:
    things = render.objects(everything())
    assert kinds(things) == [
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ConfigMap",
        "NetworkPolicy",
        "TriggerAuthentication",
        "Service",
        "Deployment",
        "PodDisruptionBudget",
        "ScaledObject",
        "ConfigMap",
    ]
    assert things[-1]["metadata"]["labels"][LABEL_PART] == "head"


def test_a_plain_function_has_nothing_that_it_does_not_need() -> None:
    assert kinds(render.objects(plain())) == [
        "ServiceAccount",
        "ConfigMap",
        "NetworkPolicy",
        "Service",
        "Deployment",
        "ScaledObject",
        "ConfigMap",
    ]


def test_everything_says_whose_it_is() -> None:
    made = everything()
    for each in [*render.objects(made), render.check_pod(made)]:
        assert each["metadata"]["namespace"] == "alerts"
        assert each["metadata"]["labels"][LABEL_MANAGED_BY] == MANAGER
        assert each["metadata"]["labels"][LABEL_FUNCTION] == "battery-alert"
        assert each["metadata"]["labels"]["team"] == "battery"
    for each in render.gateway_objects(installation()):
        assert each["metadata"]["labels"][LABEL_MANAGED_BY] == MANAGER
        assert each["metadata"]["labels"][LABEL_PART] == "gateway"
        assert LABEL_FUNCTION not in each["metadata"]["labels"]


def test_the_same_comes_out_the_same() -> None:
    assert yaml_text.documents(render.objects(everything())) == yaml_text.documents(render.objects(everything()))


def test_no_secret_is_rendered_and_no_value_of_one() -> None:
    things = render.objects(everything()) + render.gateway_objects(installation())
    assert "Secret" not in kinds(things)


# revisions


def test_a_revision_is_named_by_image_and_environment() -> None:
    made = everything()
    assert made.revision == everything().revision
    assert len(made.revision) == 64
    for other in (
        deployable(made.function, every_environment(nodeSelector={"pool": "other"})),
        deployable(made.function, every_environment(env={"MAP_TOKEN": {"secret": "maps/other"}})),
    ):
        assert other.revision != made.revision
    assert values.digest(IMAGE.replace("a" * 64, "c" * 64), made.needed) != made.revision


@pytest.mark.parametrize(
    "target",
    [
        pytest.param({"context": "other"}, id="context"),
        pytest.param({"base": "other:1"}, id="base"),
        pytest.param({"gateway": {"storage": "2Gi"}}, id="gateway"),
        pytest.param({"env": EVERY_TARGET["env"] | {"MORE": {"secret": "more/token"}}}, id="secrets of others"),
    ],
)
def test_what_concerns_others_is_no_reason_for_a_new_revision(target: Object) -> None:
    assert deployable(function(), every_environment(**target)).revision == everything().revision


def test_connections_of_others_are_no_reason_either() -> None:
    spec = {"triggers": [{"name": "telemetry", "kafka": {"topic": "t"}}]}
    alone = environment(kafka={"brokers": ["kafka:9092"]})
    more = environment(kafka={"brokers": ["kafka:9092"]}, mqtt={"url": "mqtt://broker"})
    assert deployable(function(spec), alone).revision == deployable(function(spec), more).revision


def test_a_revision_never_changes_and_holds_all_that_serving_it_again_takes() -> None:
    made = everything(paused=("live",))
    kept = of(render.objects(made), "ConfigMap", made.revision_name)
    assert kept["immutable"] is True
    assert kept["metadata"]["labels"][LABEL_REVISION] == made.short
    head = msgspec.json.decode(kept["data"][HEAD_FILE], type=Head)
    assert (head.function, head.image, head.revision, head.number) == (made.function, made.image, made.revision, 3)
    assert head.paused == ()


def test_the_head_says_what_serves_and_what_is_paused() -> None:
    made = everything(paused=("live",))
    head = msgspec.json.decode(of(render.objects(made), "ConfigMap", "battery-alert")["data"][HEAD_FILE], type=Head)
    assert head.paused == ("live",)
    assert list(head.mqtt) == ["mqtt"]
    assert str(head.mqtt["mqtt"].password) == "{secret: mqtt/password}"


def test_a_worker_reads_the_environment_that_it_was_deployed_with(tmp_path: Any) -> None:
    made = everything()
    file = tmp_path / "environments.yaml"
    file.write_text(of(render.objects(made), "ConfigMap", made.revision_name)["data"]["environments.yaml"])
    (read,) = read_environments(file).environments
    assert read == made.needed
    assert values.digest(made.image, read) == made.revision


# pods


def specs() -> Iterator[Any]:
    made = everything()
    gateway = of(render.gateway_objects(installation()), "StatefulSet")["spec"]["template"]["spec"]
    yield pytest.param(pod_of(made)["spec"], id="worker")
    yield pytest.param(render.check_pod(made)["spec"], id="check")
    yield pytest.param(gateway, id="gateway")


@pytest.mark.parametrize("spec", list(specs()))
def test_pods_are_restricted(spec: Object) -> None:
    """As the Pod Security Standard `restricted` has it, and more."""
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == anatomy.USER
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in spec["containers"] + spec.get("initContainers", []):
        assert each["securityContext"]["allowPrivilegeEscalation"] is False
        assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert each["securityContext"]["readOnlyRootFilesystem"] is True
        assert "memory" in each["resources"]["limits"]
        assert each["imagePullPolicy"] == "IfNotPresent"
    assert spec["enableServiceLinks"] is False


def test_workers_have_no_token_and_the_gateway_has_one() -> None:
    things = render.objects(everything())
    assert of(things, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod_of(everything())["spec"]["automountServiceAccountToken"] is False
    gateway = of(render.gateway_objects(installation()), "StatefulSet")["spec"]["template"]["spec"]
    assert gateway["automountServiceAccountToken"] is True


def test_a_worker_runs_its_image_and_is_told_where_it_is() -> None:
    worker = worker_of(everything())
    assert worker["image"] == IMAGE
    assert "command" not in worker
    assert "args" not in worker
    told = {each["name"]: each["value"] for each in worker["env"] if "value" in each}
    assert told == {
        "FLEETFN_GATEWAY": "https://fleetfn-gateway.alerts.svc:8443",
        "FLEETFN_TLS": "/var/run/fleetfn/tls",
        "FLEETFN_PLACE": "alerts",
        "FLEETFN_ENVIRONMENT": "prod",
        "FLEETFN_REVISION": everything().revision,
        "DAPR_HTTP_PORT": "3500",
        "TZ": "UTC",
    }


def test_a_secret_variable_is_given_to_those_that_name_it() -> None:
    given = {each["name"]: each["valueFrom"] for each in worker_of(everything())["env"] if "valueFrom" in each}
    own = {
        "FLEETFN_POD": {"fieldRef": {"fieldPath": "metadata.name"}},
        "FLEETFN_POD_ADDRESS": {"fieldRef": {"fieldPath": "status.podIP"}},
    }
    assert given == {**own, "MAP_TOKEN": {"secretKeyRef": {"name": "maps", "key": "token"}}}
    others = [each for each in worker_of(plain(target=EVERY_TARGET))["env"] if "valueFrom" in each]
    assert {each["name"] for each in others} == own.keys()


def test_secrets_are_files_only_those_keys_that_are_named() -> None:
    (volume,) = [each for each in pod_of(everything())["spec"]["volumes"] if each["name"] == "secrets"]
    paths = [item["path"] for each in volume["projected"]["sources"] for item in each["secret"]["items"]]
    assert paths == [
        "hook/auth",
        "kafka/ca.crt",
        "kafka/password",
        "maps/key",
        "mqtt/password",
        "mqtt/user",
        "mqtt-tls/ca.crt",
    ]
    assert "secrets" not in [each["name"] for each in pod_of(plain())["spec"]["volumes"]]


def test_every_mount_has_its_volume_and_what_is_written_goes_with_the_pod() -> None:
    spec = pod_of(everything())["spec"]
    volumes = {each["name"]: each for each in spec["volumes"]}
    for each in spec["containers"] + spec["initContainers"]:
        assert {mount["name"] for mount in each["volumeMounts"]} <= volumes.keys()
        writable = [mount for mount in each["volumeMounts"] if not mount.get("readOnly")]
        assert all("emptyDir" in volumes[mount["name"]] for mount in writable)
    assert {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]} >= {anatomy.DATA, "/tmp"}


def test_grace_covers_the_longest_run() -> None:
    assert pod_of(everything())["spec"]["terminationGracePeriodSeconds"] == 90 + 2 + 15


def test_a_worker_with_http_serves_on_while_its_endpoint_goes() -> None:
    assert worker_of(everything())["lifecycle"] == {"preStop": {"sleep": {"seconds": 2}}}
    assert "lifecycle" not in worker_of(plain({"triggers": [{"name": "t", "cron": {"schedule": "@daily"}}]}))


def test_health_is_asked_for_once_it_has_started() -> None:
    worker = worker_of(everything())
    assert worker["readinessProbe"]["httpGet"]["path"] == "/-/readyz"
    assert worker["readinessProbe"]["periodSeconds"] == 1
    assert worker["livenessProbe"]["httpGet"]["path"] == "/-/healthz"
    assert worker["startupProbe"]["httpGet"]["path"] == "/-/readyz"
    assert worker["startupProbe"]["periodSeconds"] == 1
    assert worker["startupProbe"]["failureThreshold"] == 600


def test_resources_are_the_function_s_over_the_environment_s_over_ours() -> None:
    assert worker_of(everything())["resources"] == {
        "requests": {"cpu": "250m", "memory": "128Mi"},
        "limits": {"memory": "1Gi"},
    }


def test_pods_go_where_the_environment_says() -> None:
    gateway = of(render.gateway_objects(installation(EVERY_TARGET)), "StatefulSet")["spec"]["template"]["spec"]
    for spec in (pod_of(everything())["spec"], gateway):
        assert spec["imagePullSecrets"] == [{"name": "harbor"}]
        assert spec["nodeSelector"] == {"pool": "functions"}
        assert spec["tolerations"] == [
            {"key": "dedicated", "operator": "Equal", "value": "functions", "effect": "NoSchedule"}
        ]
    assert pod_of(everything())["spec"]["runtimeClassName"] == "kata"
    assert "runtimeClassName" not in gateway


@pytest.mark.parametrize(
    ("spread", "key"),
    [
        pytest.param(True, "topology.kubernetes.io/zone", id="zones"),
        pytest.param("kubernetes.io/hostname", "kubernetes.io/hostname", id="a label"),
        pytest.param(False, None, id="not"),
    ],
)
def test_several_workers_are_spread(spread: Any, key: str | None) -> None:
    spec = pod_of(deployable(function(), every_environment(zoneSpread=spread)))["spec"]
    assert [each["topologyKey"] for each in spec.get("topologySpreadConstraints", [])] == ([key] if key else [])
    assert "topologySpreadConstraints" not in pod_of(plain())["spec"]


def test_a_check_is_the_same_pod_that_ends() -> None:
    made = everything()
    pod, serving = render.check_pod(made), pod_of(made)["spec"]
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["metadata"]["labels"][LABEL_PART] == "check"
    (worker,) = pod["spec"]["containers"]
    assert worker["args"] == ["--check"]
    same = ("image", "env", "resources", "securityContext", "volumeMounts")
    assert [worker[name] for name in same] == [serving["containers"][0][name] for name in same]
    assert pod["spec"]["volumes"] == serving["volumes"]
    assert pod["spec"]["initContainers"] == serving["initContainers"]
    assert "readinessProbe" not in worker


# Deployment, Service, budget


def test_a_deployment_rolls_over_without_a_gap_and_leaves_its_size_to_keda() -> None:
    spec = of(render.objects(everything()), "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in spec
    chosen = spec["selector"]["matchLabels"]
    assert chosen == {LABEL_FUNCTION: "battery-alert", LABEL_PART: "worker"}
    assert chosen.items() <= spec["template"]["metadata"]["labels"].items()
    assert chosen[LABEL_PART] != render.check_pod(everything())["metadata"]["labels"][LABEL_PART]


def test_a_service_has_no_selector_and_is_there_for_http_alone() -> None:
    spec = of(render.objects(plain()), "Service")["spec"]
    assert "selector" not in spec
    assert [(each["name"], each["port"]) for each in spec["ports"]] == [("http", 80)]
    assert "Service" not in kinds(render.objects(plain({"triggers": [{"name": "t", "cron": {"schedule": "@daily"}}]})))


def test_only_several_workers_need_a_budget() -> None:
    assert of(render.objects(everything()), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert "PodDisruptionBudget" not in kinds(render.objects(plain()))


# the gateway


def test_a_gateway_is_these_objects() -> None:
    assert kinds(render.gateway_objects(installation())) == [
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "NetworkPolicy",
        "TriggerAuthentication",
        "Service",
        "StatefulSet",
    ]


def test_a_gateway_is_one_pod_with_a_volume() -> None:
    spec = of(render.gateway_objects(installation(EVERY_TARGET)), "StatefulSet")["spec"]
    assert spec["replicas"] == 1
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "ssd",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    (container,) = spec["template"]["spec"]["containers"]
    quota = str(int(0.9 * 1024**3))  # of what the volume has
    assert container["command"] == [
        *gateway_image.COMMAND, "--data", "/data", "--namespace", "alerts", "--quota", quota,
    ]  # fmt: skip
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    assert containers.USER == anatomy.USER


def test_a_gateway_reads_no_secrets_but_those_that_functions_name() -> None:
    rules = of(render.gateway_objects(installation()), "Role")["rules"]
    assert not [each for each in rules if "secrets" in each["resources"]]
    things = render.objects(everything())
    assert of(things, "Role")["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mqtt", "mqtt-tls"], "verbs": ["get"]}
    ]
    assert of(things, "RoleBinding")["subjects"][0]["name"] == "fleetfn-gateway"


# YAML


def test_an_export_is_read_back_as_the_same_objects() -> None:
    things = [*render.gateway_objects(installation()), *render.objects(everything())]
    text = yaml_text.documents(things)
    assert list(yaml.safe_load_all(text)) == things
    assert "&id" not in text
    assert text.startswith("---\napiVersion: v1\nkind: ServiceAccount\nmetadata:\n")


def test_an_environment_of_a_node_is_no_cluster() -> None:
    with pytest.raises(TargetError, match='"local" is no cluster'):
        values.target_of(LOCAL)


def test_a_function_without_state_and_dapr_outputs_has_no_sidecar() -> None:
    spec = {"triggers": [{"name": "show", "http": {"path": "/show"}}]}
    assert "initContainers" not in pod_of(plain())["spec"]
    assert "initContainers" in pod_of(deployable(function(spec), environment(state=STATE)))["spec"]
