"""What of FleetFn a function needs in its image."""

import importlib.metadata

import msgspec
import pytest
from fleetfn_builder import needs
from fleetfn_builder.assembly.target import of_this_machine
from fleetfn_spec.function import Function

HTTP = {"name": "ask", "http": {"path": "/ask"}}
KAFKA = {"name": "telemetry", "kafka": {"topic": "vehicle.telemetry"}}


def function(*triggers, outputs=()):
    spec = {"handler": "handler:run", "triggers": list(triggers), "outputs": list(outputs)}
    described = {"apiVersion": "fleetfn.dev/v1alpha1", "kind": "Function", "metadata": {"name": "probe"}, "spec": spec}
    return msgspec.convert(described, Function)


@pytest.mark.parametrize(
    ("function", "more"),
    [
        (function(HTTP), []),
        (function(HTTP, KAFKA), ["kafka"]),
        (function(HTTP, outputs=[{"name": "a", "kafka": {"topic": "alerts"}}]), ["kafka"]),
        (function(HTTP, outputs=[{"name": "a", "http": {"url": "http://alerts.example"}}]), ["http"]),
        (function(HTTP, outputs=[{"name": "a", "mqtt": {"topic": "alerts"}}]), []),
    ],
    ids=["http", "kafka-trigger", "kafka-output", "http-output", "mqtt-output"],
)
def test_libraries_that_not_every_function_needs_are_extras(function, more):
    assert needs.extras(function) == sorted(["worker", "gateway", *more])


def test_the_place_it_goes_to_may_ask_for_more():
    assert needs.extras(function(HTTP), {"http"}) == ["gateway", "http", "worker"]


def test_for_this_python_the_versions_that_run_here_are_taken():
    held = needs.constraints(of_this_machine().python, ["worker", "gateway", "kafka"])
    for name in ("msgspec", "uvloop", "uvicorn", "confluent-kafka", "click"):
        assert f"{name}=={importlib.metadata.version(name)}" in held
    assert not [line for line in held if line.startswith(("typer", "rich", "httpcore"))]


def test_for_another_python_nothing_is_held():
    assert needs.constraints("3.99", ["worker"]) == []
