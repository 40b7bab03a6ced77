"""Functions and environments of a cluster, as values: one plain, and one that asks for everything there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from fleetfn_deploy.kubernetes import values
from fleetfn_deploy.kubernetes.values import Deployable, Installation
from fleetfn_spec.check import check_function
from fleetfn_spec.check_kubernetes import environment as check_environment
from fleetfn_spec.environments import Environment
from fleetfn_spec.function import Function
from fleetfn_spec.load import load_function

SAMPLES = Path(__file__).parents[2] / "samples"

IMAGE = f"harbor.example/alerts/battery-alert@sha256:{'a' * 64}"
GATEWAY_IMAGE = f"harbor.example/alerts/fleetfn-gateway@sha256:{'b' * 64}"

PLAIN_TARGET: dict[str, Any] = {"namespace": "alerts", "registry": "harbor.example/alerts"}

EVERY_TARGET: dict[str, Any] = PLAIN_TARGET | {
    "context": "fleet-prod",
    "base": "harbor.example/base/python:3.12",
    "imagePullSecrets": ["harbor"],
    "nodeSelector": {"pool": "functions"},
    "tolerations": [{"key": "dedicated", "value": "functions", "effect": "NoSchedule"}],
    "runtimeClassName": "kata",
    "resources": {"limits": {"memory": "1Gi"}},
    "env": {"MAP_TOKEN": {"secret": "maps/token"}, "UNUSED": {"secret": "other/token"}, "TZ": "UTC"},
    "gateway": {"storage": "1Gi", "storageClass": "ssd", "resources": {"limits": {"cpu": "1"}}},
    "keda": {"namespace": "keda-system", "polling": "1s"},
    "dapr": {"image": "harbor.example/tools/daprd:1.14.4"},
}

KAFKA: dict[str, Any] = {
    "brokers": ["kafka-0.kafka.svc:9093", "kafka.example.org:9094"],
    "tls": {"ca": {"secret": "kafka/ca.crt"}},
    "sasl": {"mechanism": "SCRAM-SHA-512", "username": "fn", "password": {"secret": "kafka/password"}},
}
MQTT: dict[str, Any] = {
    "url": "mqtts://10.1.2.3:8883",
    "username": {"secret": "mqtt/user"},
    "password": {"secret": "mqtt/password"},
    "tls": {"ca": {"secret": "mqtt-tls/ca.crt"}},
}
DAPR: dict[str, Any] = {
    "components": [
        {
            "name": "fleet-pubsub",
            "type": "pubsub.redis",
            "metadata": [{"name": "redisHost", "value": "redis.queues.svc:6379"}],
        }
    ]
}
STATE: dict[str, Any] = {
    "dapr": {
        "component": "vehicles",
        "type": "state.redis",
        "metadata": [
            {"name": "redisHost", "value": "redis.stores.svc:6380"},
            {"name": "redisPassword", "value": {"secret": "redis/password"}},
        ],
    }
}

EVERY_SPEC: dict[str, Any] = {
    "handler": "handler:watch",
    "config": {"hot": 60, "token": {"env": "MAP_TOKEN"}, "key": {"secret": "maps/key"}},
    "triggers": [
        {"name": "telemetry", "key": "data.vehicle", "kafka": {"topic": "vehicle.telemetry"}, "timeout": "90s"},
        {"name": "live", "key": "topic.vehicle", "mqtt": {"topic": "vehicles/{vehicle}/battery"}},
        {"name": "show", "key": "path.vehicle", "http": {"path": "/battery/{vehicle}", "methods": ["GET"]}},
        {"name": "nightly", "cron": {"schedule": "@daily"}},
    ],
    "outputs": [
        {"name": "alerts", "kafka": {"topic": "alerts"}},
        {"name": "lamp", "mqtt": {"topic": "vehicles/{key}/lamp"}},
        {
            "name": "hook",
            "http": {"url": "https://hooks.example.org/alerts", "headers": {"authorization": {"secret": "hook/auth"}}},
        },
        {"name": "fleet", "dapr": {"pubsub": "fleet-pubsub", "topic": "alerts"}},
    ],
    "returns": "alerts",
    "scale": {"max": 4, "idle": "20s", "concurrency": 16},
    "resources": {"requests": {"cpu": "250m"}},
}


def function(spec: dict[str, Any] | None = None, name: str = "battery-alert", **metadata: Any) -> Function:
    """`spec` None: the one with everything."""
    described = {
        "apiVersion": "fleetfn.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": name, **metadata},
        "spec": EVERY_SPEC if spec is None else {"handler": "handler:watch", **spec},
    }
    return msgspec.convert(described, Function)


def environment(
    target: dict[str, Any] | None = None, *, state: dict[str, Any] | None = None, **connections: dict[str, Any]
) -> Environment:
    """`connections`: by kind, each named like it."""
    described = {
        "name": "prod",
        "target": {"kubernetes": PLAIN_TARGET | (target or {})},
        "connections": [{"name": kind, kind: block} for kind, block in connections.items()],
        **({"state": state} if state else {}),
    }
    return msgspec.convert(described, Environment)


def every_environment(**target: Any) -> Environment:
    return environment(EVERY_TARGET | target, state=STATE, kafka=KAFKA, mqtt=MQTT, dapr=DAPR)


def deployable(function: Function, environment: Environment, **others: Any) -> Deployable:
    """Valid, by all checks."""
    assert not [*check_environment(environment, ()), *check_function(function, environment)]
    namespace = values.target_of(environment).namespace
    made = Deployable(function, environment, namespace, IMAGE, "", 3, 1_790_000_000.5, **others)
    return replace(made, revision=values.digest(made.image, made.needed))


def everything(**others: Any) -> Deployable:
    return deployable(function(labels={"team": "battery"}), every_environment(), **others)


def plain(spec: dict[str, Any] | None = None, target: dict[str, Any] | None = None) -> Deployable:
    """A function that is called by HTTP and reaches nothing, unless `spec` says otherwise."""
    return deployable(
        function(spec or {"triggers": [{"name": "show", "http": {"path": "/show"}}]}), environment(target)
    )


def sample(name: str, environment: Environment) -> Deployable:
    return deployable(load_function(SAMPLES / name), environment)


def installation(target: dict[str, Any] | None = None) -> Installation:
    found = values.target_of(environment(target))
    return Installation(found.namespace, GATEWAY_IMAGE, found)
