"""What KEDA is told: the same group, topic and brokers as the consumer, credentials by reference."""

from typing import Any

import pytest
from cluster_functions import deployable, environment, everything, function, installation, plain
from fleetfn_deploy.kubernetes import render
from fleetfn_deploy.kubernetes.values import Deployable
from fleetfn_runtime.settings import group_id
from fleetfn_spec.cluster import SCALER_TLS

Object = dict[str, Any]

KAFKA = {"triggers": [{"name": "telemetry", "kafka": {"topic": "vehicle.telemetry", "start": "latest"}}]}


def found(made: Deployable, kind: str) -> list[Object]:
    return [each for each in render.objects(made) if each["kind"] == kind]


def scaled(made: Deployable) -> Object:
    (one,) = found(made, "ScaledObject")
    spec: Object = one["spec"]
    return spec


def kafka(**connection: Any) -> Deployable:
    return deployable(function(KAFKA), environment(kafka={"brokers": ["kafka:9092"], **connection}))


def source(made: Deployable) -> Object:
    (one,) = [each for each in scaled(made)["triggers"] if each["type"] == "kafka"]
    return one


def logins(made: Deployable) -> dict[str, tuple[str, str]]:
    """(name, key) by parameter, whatever it is a reference to."""
    (one,) = found(made, "TriggerAuthentication")
    refs = [ref for each in one["spec"].values() for ref in each]
    return {ref["parameter"]: (ref["name"], ref["key"]) for ref in refs}


def test_one_object_scales_a_function_by_all_that_may_wake_it() -> None:
    spec = scaled(everything())
    assert spec["scaleTargetRef"] == {"name": "battery-alert"}
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 4)
    assert (spec["pollingInterval"], spec["cooldownPeriod"]) == (1, 20)
    assert [each["type"] for each in spec["triggers"]] == ["kafka", "external-push"]


def test_the_gateway_pushes_for_every_function_and_shows_who_it_is() -> None:
    (push,) = scaled(plain())["triggers"]
    assert push["metadata"] == {
        "scalerAddress": "fleetfn-gateway.alerts.svc:9443",
        "enableTLS": "true",
        "function": "battery-alert",
        "concurrency": "64",
    }
    (login,) = [each for each in render.gateway_objects(installation()) if each["kind"] == "TriggerAuthentication"]
    assert push["authenticationRef"] == {"name": login["metadata"]["name"]}
    assert {each["parameter"]: (each["name"], each["key"]) for each in login["spec"]["secretTargetRef"]} == {
        "caCert": (SCALER_TLS, "ca.crt"),
        "tlsClientCert": (SCALER_TLS, "tls.crt"),
        "tlsClientKey": (SCALER_TLS, "tls.key"),
    }


def test_kafka_is_asked_for_the_consumer_s_own_group() -> None:
    told = source(kafka())["metadata"]
    assert told == {
        "bootstrapServers": "kafka:9092",
        "consumerGroup": group_id("prod", "alerts", "battery-alert", "telemetry"),
        "topic": "vehicle.telemetry",
        "lagThreshold": "128",
        "activationLagThreshold": "0",
        "offsetResetPolicy": "earliest",
        "allowIdleConsumers": "false",
        "version": "2.1.0",
    }
    assert "authenticationRef" not in source(kafka())
    assert not found(kafka(), "TriggerAuthentication")


def test_credentials_are_references_a_user_s_name_in_the_revision() -> None:
    secret = {"secret": "kafka/password"}
    made = kafka(sasl={"mechanism": "PLAIN", "username": "fn", "password": secret})
    assert source(made)["metadata"]["sasl"] == "plaintext"
    assert source(made)["authenticationRef"] == {"name": "battery-alert.kafka"}
    assert logins(made) == {"password": ("kafka", "password"), "username": (made.revision_name, "username-kafka")}
    (kept,) = [each for each in found(made, "ConfigMap") if each["metadata"]["name"] == made.revision_name]
    assert kept["data"]["username-kafka"] == "fn"


@pytest.mark.parametrize(
    ("mechanism", "word"), [("SCRAM-SHA-256", "scram_sha256"), ("SCRAM-SHA-512", "scram_sha512")], ids=str
)
def test_mechanisms_have_other_names(mechanism: str, word: str) -> None:
    login = {"mechanism": mechanism, "username": {"secret": "kafka/user"}, "password": {"secret": "kafka/password"}}
    made = kafka(sasl=login)
    assert source(made)["metadata"]["sasl"] == word
    assert logins(made)["username"] == ("kafka", "user")


def test_certificates_come_from_secrets() -> None:
    tls = {name: {"secret": f"tls/{name}"} for name in ("ca", "certificate", "key", "key_password")}
    made = kafka(tls=tls | {"verify": "none"})
    assert source(made)["metadata"]["tls"] == "enable"
    assert source(made)["metadata"]["unsafeSsl"] == "true"
    assert logins(made) == {
        "ca": ("tls", "ca"),
        "cert": ("tls", "certificate"),
        "key": ("tls", "key"),
        "keyPassword": ("tls", "key_password"),
    }


def test_tls_with_known_authorities_needs_no_login() -> None:
    made = kafka(tls={})
    assert source(made)["metadata"]["tls"] == "enable"
    assert "unsafeSsl" not in source(made)["metadata"]
    assert not found(made, "TriggerAuthentication")


def test_several_triggers_of_a_connection_share_a_login() -> None:
    spec = {"triggers": [{"name": name, "kafka": {"topic": name}} for name in ("one", "two")]}
    login = {"mechanism": "PLAIN", "username": "fn", "password": {"secret": "kafka/password"}}
    made = deployable(function(spec), environment(kafka={"brokers": ["kafka:9092"], "sasl": login}))
    assert len(found(made, "TriggerAuthentication")) == 1
    assert [each["name"] for each in scaled(made)["triggers"]] == ["one", "two", "fleetfn-gateway"]


def test_a_paused_trigger_wakes_nobody() -> None:
    made = deployable(function(KAFKA), environment(kafka={"brokers": ["kafka:9092"]}), paused=("telemetry",))
    assert [each["type"] for each in scaled(made)["triggers"]] == ["external-push"]


def test_fewer_workers_come_as_slowly_as_the_function_falls_asleep() -> None:
    def window(idle: str) -> int:
        spec = {"triggers": [{"name": "show", "http": {"path": "/show"}}], "scale": {"idle": idle}}
        behavior = scaled(plain(spec))["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        seconds: int = behavior["scaleDown"]["stabilizationWindowSeconds"]
        return seconds

    assert window("1500ms") == 2
    assert window("24h") == 3600  # an autoscaler's longest


def test_the_add_on_brings_requests_where_it_is_asked_for() -> None:
    made = plain(target={"addOn": {"hosts": ["{function}.fleet.example"]}})
    push = scaled(made)["triggers"][-1]
    assert push["type"] == "external-push"
    assert push["metadata"]["interceptorRoute"] == "battery-alert"
    (route,) = found(made, "InterceptorRoute")
    assert route["spec"]["rules"] == [{"hosts": ["battery-alert.fleet.example"]}]
    (service,) = found(made, "Service")
    assert service["spec"]["selector"]["fleetfn.dev/part"] == "worker"
    assert made.head.activates is False
    assert plain().head.activates is True
