"""The kubernetes target: what an environment may say, and what a function meets there."""

from pathlib import Path

import pytest
from fleetfn_spec.check import check_function
from fleetfn_spec.environments import Environment
from fleetfn_spec.kubernetes import Amounts, KubernetesTarget, Resources
from fleetfn_spec.load import load_environments, read_function
from fleetfn_spec.problems import SpecError
from spec_cases import cases

VALID = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Environments
environments:
- name: prod
  target:
    kubernetes:
      context: fleet-prod
      namespace: alerts
      registry: 10.244.0.1:5000/alerts
      base: harbor.example/base/python:3.12
      imagePullSecrets: [harbor]
      resources: {requests: {cpu: 250m}, limits: {memory: 1Gi, cpu: "2"}}
      nodeSelector: {pool: functions}
      tolerations:
      - {key: dedicated, operator: Exists, effect: NoExecute, tolerationSeconds: 300}
      zoneSpread: kubernetes.io/hostname
      runtimeClassName: kata
      env: {MAP_TOKEN: {secret: maps/token}, TZ: UTC}
      egress: [{cidr: 10.20.0.0/16, ports: [9092]}, {namespace: queues}]
      gateway: {storage: 50Gi, storageClass: ssd}
      keda: {namespace: scaling, polling: 1s}
      dapr: {image: "harbor.example/daprd:1.14.4", namespace: dapr}
      addOn: {hosts: ["{function}.fleet.example"]}
  connections:
  - name: kafka
    kafka:
      brokers: ["kafka-0:9092"]
      tls: {ca: {secret: kafka/ca.crt}}
      sasl: {mechanism: SCRAM-SHA-512, username: fn, password: {secret: kafka/password}}
  - {name: mqtt, mqtt: {url: "mqtts://b", username: {secret: mqtt/user}, password: {secret: mqtt/password}}}
  - {name: dapr, dapr: {components: [{name: queue, type: pubsub.redis}]}}
  state:
    dapr:
      component: vehicles
      type: state.postgresql
      version: v2
      metadata: [{name: connectionString, value: {secret: db/url}}]
"""


def load(folder: Path, text: str = VALID) -> Environment:
    (folder / "environments.yaml").write_text(text)
    found = load_environments(folder)
    assert found is not None
    return found[0].environments[0]


def test_a_complete_example_loads(tmp_path: Path) -> None:
    prod = load(tmp_path)
    target = prod.target.kubernetes
    assert target is not None
    assert (target.namespace, target.registry) == ("alerts", "10.244.0.1:5000/alerts")
    assert target.zoneSpread == "kubernetes.io/hostname"
    assert target.tolerations[0].tolerationSeconds == 300
    assert prod.connections[0].kafka is not None
    assert prod.connections[0].kafka.tls is not None
    assert prod.connections[0].kafka.tls.path("ca") == "/var/run/fleetfn/secrets/kafka/ca.crt"


def test_namespace_and_registry_are_enough() -> None:
    target = KubernetesTarget(namespace="alerts", registry="harbor.example/alerts")
    assert target.keda.polling == "5s"
    assert target.gateway.storage == "10Gi"
    assert target.zoneSpread is True
    assert target.egress is None


def test_resources_are_laid_over_each_other_one_by_one() -> None:
    mine = Resources(limits=Amounts(memory="1Gi"))
    theirs = Resources(requests=Amounts(cpu="100m", memory="128Mi"), limits=Amounts(memory="512Mi", cpu="1"))
    assert mine.over(theirs) == Resources(
        requests=Amounts(cpu="100m", memory="128Mi"), limits=Amounts(memory="1Gi", cpu="1")
    )


@pytest.mark.parametrize(("old", "new", "expected"), cases("broken_clusters.txt"))
def test_says_what_is_wrong_and_where(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert VALID.count(old) == 1
    with pytest.raises(SpecError) as caught:
        load(tmp_path, VALID.replace(old, new, 1))
    said = [str(each).removeprefix(f"{tmp_path}/environments.yaml:") for each in caught.value.problems]
    assert said == expected


FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: battery-alert, labels: {team: battery}}
spec:
  handler: handler:watch
  config: {token: {env: MAP_TOKEN}, key: {secret: maps/key}}
  triggers:
  - {name: telemetry, kafka: {topic: telemetry}}
  outputs:
  - {name: hook, http: {url: "https://hooks.example", headers: {authorization: {secret: hook/auth}}}}
  resources: {limits: {memory: 2Gi}}
"""


def problems(folder: Path, text: str, environments: str = VALID) -> list[str]:
    (folder / "function.yaml").write_text(text)
    (folder / "handler.py").write_text("def watch(): ...")
    loaded = read_function(folder)
    found = check_function(loaded.function, load(folder, environments), loaded.places)
    return [str(each).removeprefix(f"{folder}/function.yaml:") for each in found]


def test_a_function_fits_its_environment(tmp_path: Path) -> None:
    assert problems(tmp_path, FUNCTION) == []


@pytest.mark.parametrize(
    "name", ["fleetfn-gateway", "default", "kubernetes", "keda", "battery-tls", "battery-r0123456789ab"]
)
def test_names_of_other_objects_are_taken(tmp_path: Path, name: str) -> None:
    (told,) = problems(tmp_path, FUNCTION.replace("name: battery-alert", f"name: {name}"))
    assert told == (f'3:18: metadata.name: "{name}" is a name of other objects in a namespace; choose another')


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        pytest.param(
            "{a b: x}",
            "metadata.labels.a b: \"a b\" cannot be a label in Kubernetes; write letters, digits, '-', '_' and '.'",
            id="key",
        ),
        pytest.param(
            "{team: a b}",
            'metadata.labels.team: "a b" cannot be a label\'s value in Kubernetes; write letters, digits, '
            "'-', '_' and '.', at most 63",
            id="value",
        ),
        pytest.param(
            "{fleetfn.dev/part: x}",
            'metadata.labels.fleetfn.dev/part: "fleetfn.dev/part" cannot be a label in Kubernetes; write letters, '
            "digits, '-', '_' and '.'",
            id="ours",
        ),
    ],
)
def test_labels_are_those_of_kubernetes(tmp_path: Path, labels: str, told: str) -> None:
    (said,) = problems(tmp_path, FUNCTION.replace("{team: battery}", labels))
    assert said.partition(": ")[2] == told


def test_a_cluster_has_no_brokers_of_its_own(tmp_path: Path) -> None:
    bare = VALID[: VALID.index("  connections:")]
    (told,) = problems(tmp_path, FUNCTION, bare)
    assert told == (
        '8:30: spec.triggers[0].kafka: the environment "prod" has no connection "kafka", and a cluster has no brokers '
        "of its own; add it to the environment"
    )
    named = FUNCTION.replace("name: telemetry", "name: telemetry, connection: plant")
    (told,) = problems(tmp_path, named, bare)
    assert told.endswith('the environment "prod" has no connection "plant"; connections: none')


def test_a_dapr_output_takes_the_sidecar_that_state_has(tmp_path: Path) -> None:
    bare = VALID[: VALID.index("  connections:")]
    output = "{name: hook, dapr: {pubsub: queue, topic: alerts}}"
    text = (
        FUNCTION[: FUNCTION.index("  - {name: telemetry")]
        + f"""\
  - {{name: clock, cron: {{schedule: "@daily"}}}}
  outputs:
  - {output}
"""
    )
    (told,) = problems(tmp_path, text, bare)
    assert 'has no connection "dapr"' in told
    assert problems(tmp_path, text, bare + "  state: {dapr: {component: vehicles}}\n") == []


def test_a_variable_that_the_environment_does_not_know_is_named(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, FUNCTION.replace("env: MAP_TOKEN", "env: OTHER"))
    assert told == (
        "6:19: spec.config.token: {env: OTHER}: the environment does not say what OTHER is; add OTHER to `env` of the "
        "environment's target"
    )


def test_keda_cannot_check_a_certificate_without_its_name(tmp_path: Path) -> None:
    loose = VALID.replace("tls: {ca:", "tls: {verify: certificate, ca:")
    (told,) = problems(tmp_path, FUNCTION, loose)
    assert told == (
        '8:30: spec.triggers[0].kafka: the connection "kafka" does not check host names; KEDA asks the brokers, too, '
        "and knows only `verify: hostname` and `none`"
    )
