"""Which environment a worker in an image takes."""

import pytest
from fleetfn.errors import FleetError, UsageError
from fleetfn_runtime import lone_places
from fleetfn_spec.load import load_function

HEAD = "apiVersion: fleetfn.dev/v1alpha1\nkind: Environments\nenvironments:\n"
KAFKA = '- {{name: {}, connections: [{{name: kafka, kafka: {{brokers: ["{}:9092"]}}}}]}}\n'

FUNCTION = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: battery-alert}
spec:
  handler: handler:watch
  triggers:
  - {name: telemetry, kafka: {topic: telemetry}}
  - {name: live, mqtt: {topic: live}}
  outputs:
  - {name: alerts, kafka: {topic: alerts}}
  - {name: desk, http: {url: "http://desk.example/"}}
"""


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "fn"
    inside.mkdir()
    (inside / "function.yaml").write_text(FUNCTION)
    (inside / "handler.py").write_text("def watch(event): ...\n")
    return inside


def mounted(tmp_path, *names):
    file = tmp_path / "mounted.yaml"
    file.write_text(HEAD + "".join(KAFKA.format(name, name) for name in names))
    return file


def test_the_mounted_file_goes_before_the_nearest_one(folder, tmp_path):
    (folder / "environments.yaml").write_text(HEAD + KAFKA.format("local", "near"))
    assert lone_places.environment(folder, None).connections[0].kafka.brokers == ["near:9092"]
    found = lone_places.environment(folder, None, mounted(tmp_path, "local"))
    assert found.connections[0].kafka.brokers == ["local:9092"]
    assert lone_places.environment(folder, None, tmp_path / "not there").connections[0].kafka.brokers == ["near:9092"]


def test_the_only_environment_of_a_mounted_file_need_not_be_named(folder, tmp_path):
    assert lone_places.environment(folder, None, mounted(tmp_path, "prod")).name == "prod"
    with pytest.raises(UsageError, match="several environments: prod, bench") as refused:
        lone_places.environment(folder, None, mounted(tmp_path, "prod", "bench"))
    assert "FLEETFN_ENVIRONMENT" in refused.value.hint
    assert lone_places.environment(folder, "bench", mounted(tmp_path, "prod", "bench")).name == "bench"
    assert lone_places.environment(folder, None, mounted(tmp_path, "prod", "local")).name == "local"


def test_a_folder_in_the_files_place_is_explained(folder, tmp_path):
    with pytest.raises(UsageError, match="is a folder") as refused:
        lone_places.environment(folder, None, tmp_path)
    assert "Docker makes a folder" in refused.value.hint


def test_every_connection_without_an_address_is_named_at_once(folder, tmp_path):
    function = load_function(folder)
    file = mounted(tmp_path, "prod")
    with pytest.raises(FleetError) as refused:
        lone_places.check_addresses(function, lone_places.LOCAL, file)
    assert refused.value.message == (
        'trigger "telemetry" needs the Kafka connection "kafka"; trigger "live" needs the MQTT connection "mqtt"; '
        'output "alerts" needs the Kafka connection "kafka", and environment "local" gives no address'
    )
    assert f"-v $PWD/environments.yaml:{file}:ro" in refused.value.hint
    with pytest.raises(FleetError, match='trigger "live" needs the MQTT connection "mqtt", and environment "prod"'):
        lone_places.check_addresses(function, lone_places.environment(folder, None, file), None)
