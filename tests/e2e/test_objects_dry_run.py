"""Every object that is rendered is one that the API server takes: by server-side dry run, in a real cluster."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cluster_functions import (
    EVERY_TARGET,
    KAFKA,
    MQTT,
    STATE,
    deployable,
    environment,
    every_environment,
    function,
    installation,
    plain,
    sample,
)
from fleetfn_deploy.kubernetes import pki, render, yaml_text
from fleetfn_deploy.kubernetes.metadata import Object
from fleetfn_deploy.kubernetes.values import Deployable
from kubectl_command import Kubectl

IN_CLUSTER = environment(state=STATE, kafka=KAFKA, mqtt=MQTT)
DAILY = {"triggers": [{"name": "nightly", "cron": {"schedule": "@daily"}}], "scale": {"min": 1}}

pytestmark = pytest.mark.e2e

FUNCTIONS: dict[str, Deployable] = {
    "everything": deployable(
        function(labels={"team": "battery"}), every_environment(runtimeClassName=None), apart=("10.9.0.1", "fd00::1")
    ),
    "closed": deployable(function(), every_environment(runtimeClassName=None, egress=[])),
    "injected": deployable(function(DAILY), environment(state={"dapr": {"component": "vehicles"}})),
    **{name: sample(name, IN_CLUSTER) for name in ("battery-alert", "tyre-pressure", "trip-report")},
}


@pytest.fixture(scope="module")
def account(kubectl: Kubectl) -> str:
    """A pod is refused where its account is not there, in a dry run, too."""
    kubectl("create", "serviceaccount", "battery-alert")
    return "battery-alert"


def placed(thing: Object, namespace: str) -> Object:
    """In the test's own namespace."""
    return {**thing, "metadata": {**thing["metadata"], "namespace": namespace}}


def take(kubectl: Kubectl, thing: Object) -> None:
    """As `fn` applies it; what Kubernetes would drop, or only warn of, is refused."""
    arguments = ("apply", "--server-side", "--field-manager=fleetfn", "--dry-run=server", "--validate=strict")
    kubectl(*arguments, "--filename=-", given=yaml_text.documents([placed(thing, kubectl.namespace)]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_s_objects_are_taken(kubectl: Kubectl, name: str) -> None:
    for thing in render.objects(FUNCTIONS[name]):
        take(kubectl, thing)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_its_check_is_taken(kubectl: Kubectl, account: str, name: str) -> None:
    pod = render.check_pod(FUNCTIONS[name])
    pod["spec"]["serviceAccountName"] = account
    take(kubectl, pod)


def test_the_gateway_s_objects_are_taken(kubectl: Kubectl) -> None:
    for target in ({}, EVERY_TARGET):
        for thing in render.gateway_objects(replace(installation(target), namespace=kubectl.namespace)):
            take(kubectl, thing)


def test_certificates_are_taken(kubectl: Kubectl) -> None:
    for thing in pki.due(kubectl.namespace, {}, datetime.now(UTC), function="battery-alert"):
        take(kubectl, thing)


def test_the_add_on_s_route_is_taken(kubectl: Kubectl, everywhere: Kubectl) -> None:
    if "interceptorroutes.http.keda.sh" not in everywhere("get", "crd", "--output=name"):
        pytest.skip("the cluster has no http-add-on")
    for thing in render.objects(plain(target={"addOn": {}})):
        take(kubectl, thing)


def pods() -> dict[str, dict[str, Any]]:
    """Specs of pods; volumes of a claim are left out."""
    (gateway,) = [each for each in render.gateway_objects(installation()) if each["kind"] == "StatefulSet"]
    spec = gateway["spec"]["template"]["spec"]
    volumes = [*spec["volumes"], {"name": "data", "emptyDir": {}}]
    return {"check": render.check_pod(FUNCTIONS["everything"])["spec"], "gateway": spec | {"volumes": volumes}}


def test_pods_pass_the_strictest_standard(kubectl: Kubectl, account: str) -> None:
    """Pod Security `restricted`, as namespaces may ask for it."""
    kubectl("label", "namespace", kubectl.namespace, "pod-security.kubernetes.io/enforce=restricted")
    try:
        for name, spec in pods().items():
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
            take(kubectl, pod | {"spec": spec | {"serviceAccountName": account}})
    finally:
        kubectl("label", "namespace", kubectl.namespace, "pod-security.kubernetes.io/enforce-")
