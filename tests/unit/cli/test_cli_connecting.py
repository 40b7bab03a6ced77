"""What an image meets where it is run by hand."""

from pathlib import PurePosixPath

import pytest
from fleetfn.errors import UsageError
from fleetfn_cli import connecting
from fleetfn_spec.environments import LOCAL
from fleetfn_spec.load import read_environments

THERE = PurePosixPath("/etc/fleetfn")

ENVIRONMENTS = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Environments
environments:
- name: bench
  connections:
  - name: kafka
    kafka:
      brokers: ["kafka-0:9093"]
      tls: {ca: ca.pem, verify: certificate}
      sasl: {mechanism: PLAIN, username: fn, password: {env: KAFKA_PASSWORD}}
  - {name: mqtt, mqtt: {url: "mqtts://broker:8883", username: fn, password: {file: password}}}
"""


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "environments.yaml").write_text(ENVIRONMENTS)
    (tmp_path / "ca.pem").write_text("authorities")
    (tmp_path / "password").write_text("secret")
    return read_environments(tmp_path / "environments.yaml").environments[0]


def reread(met, tmp_path):
    (tmp_path / "written.yaml").write_bytes(met.files["environments.yaml"])
    return read_environments(tmp_path / "written.yaml").environments[0]


def test_what_is_written_is_read_as_it_was_and_files_move_along(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("KAFKA_PASSWORD", "from fn's own environment")
    met = connecting.meet(bench, THERE, given={"OTHER": "x"})
    assert met.variables == {"KAFKA_PASSWORD": "from fn's own environment", "OTHER": "x"}
    moved = {name: content for name, content in met.files.items() if name != "environments.yaml"}
    assert moved == {"0-ca.pem": b"authorities", "1-password": b"secret"}
    read = reread(met, tmp_path)
    assert read.name == "bench"
    assert read.connection("kafka").kafka.tls.ca == "/etc/fleetfn/0-ca.pem"
    assert read.connection("kafka").kafka.sasl == bench.connection("kafka").kafka.sasl
    assert read.connection("mqtt").mqtt.password.file == "/etc/fleetfn/1-password"
    assert b"secret" not in met.files["environments.yaml"]
    assert "secret" not in repr(met)


def test_a_variable_that_is_given_goes_before_fns_own(bench, monkeypatch):
    monkeypatch.setenv("KAFKA_PASSWORD", "own")
    assert connecting.meet(bench, THERE, given={"KAFKA_PASSWORD": "given"}).variables == {"KAFKA_PASSWORD": "given"}


def test_an_address_that_is_given_takes_the_place_of_the_other_and_logins_stay(bench, tmp_path):
    there = connecting.with_addresses(bench, ["kafka=a:1,b:2", "mqtt=mqtts://c:3", "more=d:4", "live=mqtt://e:5"])
    assert there.connection("kafka").kafka.brokers == ["a:1", "b:2"]
    assert there.connection("kafka").kafka.sasl is not None
    assert there.connection("mqtt").mqtt.url == "mqtts://c:3"
    assert there.connection("more").kafka.brokers == ["d:4"]
    assert there.connection("live").mqtt.url == "mqtt://e:5"
    assert reread(connecting.meet(there, THERE, given={}), tmp_path).connection("live").mqtt.url == "mqtt://e:5"


def test_mqtt_needs_no_scheme():
    assert connecting.with_addresses(LOCAL, ["mqtt=broker:1883"]).connection("mqtt").mqtt.url == "mqtt://broker:1883"


@pytest.mark.parametrize("given", ["kafka", "kafka=", "=a:1", "mqtt=mqtt://a b:1"])
def test_what_is_no_address_is_refused(given):
    with pytest.raises(UsageError):
        connecting.with_addresses(LOCAL, [given])


def test_addresses_at_loopback_are_found():
    given = ["kafka=localhost:9092,kafka-1:9092", "other=10.0.0.7:9092", "mqtt=mqtt://127.0.0.1:1883"]
    assert connecting.at_loopback(connecting.with_addresses(LOCAL, given)) == [
        ("kafka", "localhost:9092"),
        ("mqtt", "mqtt://127.0.0.1:1883"),
    ]
