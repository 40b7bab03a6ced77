"""environments.yaml, and functions in their environment."""

from pathlib import Path

import msgspec
import pytest
from fleetfn_spec.check import check_function
from fleetfn_spec.environments import LOCAL, Environments
from fleetfn_spec.load import load_environments, read_function
from fleetfn_spec.problems import SpecError
from spec_cases import cases

VALID = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Environments
environments:
- {name: local, target: {node: {}}}
- name: bench
  target: {node: {name: bench}}
  connections:
  - name: kafka
    kafka:
      brokers: ["kafka-0:9092", "[::1]:9092"]
      tls: {ca: ca.pem, certificate: /etc/c.pem, key: c.key, key_password: {file: key.pass}, verify: certificate}
      sasl: {mechanism: SCRAM-SHA-512, username: fn, password: {env: KAFKA_PASSWORD}}
      properties: {socket.keepalive.enable: true, fetch.wait.max.ms: 50, client.rack: a}
  - {name: plant, kafka: {brokers: ["plant:9092"], tls: {}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "environments.yaml").write_text(VALID)
    return tmp_path


def load(folder: Path) -> Environments:
    found = load_environments(folder)
    assert found is not None
    return found[0]


def told(folder: Path, text: str) -> list[str]:
    (folder / "environments.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_environments(folder)
    return [str(each).removeprefix(f"{folder}/environments.yaml:") for each in caught.value.problems]


def test_a_complete_example_loads(folder: Path) -> None:
    local, bench = load(folder).environments
    assert local == LOCAL
    kafka = bench.connections[0].kafka
    assert kafka is not None
    assert kafka.brokers == ["kafka-0:9092", "[::1]:9092"]
    assert kafka.properties == {"socket.keepalive.enable": True, "fetch.wait.max.ms": 50, "client.rack": "a"}
    assert kafka.sasl is not None
    assert str(kafka.sasl.password) == "{env: KAFKA_PASSWORD}"


def test_relative_files_start_at_the_file_s_folder(folder: Path) -> None:
    kafka = load(folder).environments[1].connections[0].kafka
    assert kafka is not None
    assert kafka.tls is not None
    assert kafka.tls.ca == str(folder / "ca.pem")
    assert kafka.tls.certificate == "/etc/c.pem"
    assert kafka.tls.key_password is not None
    assert kafka.tls.key_password.file == str(folder / "key.pass")


def test_those_of_an_mqtt_connection_do_so_too(folder: Path) -> None:
    mqtt = "{url: mqtts://b, username: fn, password: {file: p}, tls: {ca: ca.pem, certificate: /c.pem, key: c.key}}"
    (folder / "environments.yaml").write_text(f"{VALID}  - {{name: mqtt, mqtt: {mqtt}}}\n")
    found = load(folder).environments[1].connections[-1].mqtt
    assert found is not None
    assert found.tls is not None
    assert (found.tls.ca, found.tls.certificate) == (str(folder / "ca.pem"), "/c.pem")
    assert found.tls.key == str(folder / "c.key")
    assert found.password is not None
    assert found.password.file == str(folder / "p")


def test_survives_the_wire(folder: Path) -> None:
    environments = load(folder)
    assert msgspec.json.decode(msgspec.json.encode(environments), type=Environments) == environments


def test_the_nearest_file_upwards_is_taken(folder: Path) -> None:
    deep = folder / "functions" / "battery"
    deep.mkdir(parents=True)
    found = load_environments(deep)
    assert found is not None
    assert found[1] == folder / "environments.yaml"
    (folder / "functions" / "environments.yaml").write_text(VALID.replace("bench", "other"))
    found = load_environments(deep)
    assert found is not None
    assert found[1] == folder / "functions" / "environments.yaml"


@pytest.mark.parametrize(("old", "new", "expected"), cases("broken_environments.txt"))
def test_says_what_is_wrong_and_where(folder: Path, old: str, new: str, expected: list[str]) -> None:
    assert VALID.count(old) == 1
    said = told(folder, VALID.replace(old, new, 1))
    assert said == expected
    assert "hunter" not in "".join(said)


FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: battery-alert}
spec:
  handler: handler:watch
  config: {token: {env: TOKEN}}
  triggers:
  - {name: telemetry, kafka: {topic: telemetry}}
  - {name: frames, connection: plant, kafka: {topic: frames}}
  outputs:
  - {name: alerts, kafka: {topic: alerts}}
"""


def in_environment(folder: Path, text: str, environment: int) -> list[str]:
    (folder / "function.yaml").write_text(text)
    (folder / "handler.py").write_text("def watch(): ...")
    loaded = read_function(folder)
    found = check_function(loaded.function, load(folder).environments[environment], loaded.places)
    return [str(each).removeprefix(f"{folder}/") for each in found]


def test_a_function_fits_its_environment(folder: Path) -> None:
    assert in_environment(folder, FUNCTION, 1) == []


def test_a_connection_that_is_not_there_is_named_with_the_nearest(folder: Path) -> None:
    told = in_environment(folder, FUNCTION, 0)
    assert told == [
        (
            'function.yaml:9:32: spec.triggers[1].connection: the environment "local" has no connection "plant"; '
            "connections: none"
        )
    ]
    assert in_environment(folder, FUNCTION.replace("connection: plant", "connection: palnt"), 1) == [
        (
            'function.yaml:9:32: spec.triggers[1].connection: the environment "bench" has no connection "palnt"; '
            'did you mean "plant"? connections: kafka, plant'
        )
    ]


def test_a_kubernetes_secret_in_config_is_refused_on_a_node(folder: Path) -> None:
    (told,) = in_environment(folder, FUNCTION.replace("{env: TOKEN}", "{secret: map/token}"), 1)
    assert told.startswith(
        "function.yaml:6:19: spec.config.token: {secret: map/token}: a Kubernetes Secret is there for "
    )
