"""A real cluster: the one of `tests/cluster/`, or any that FN_E2E_KUBECONFIG names.

Where what functions speak to is, as pods and tests both reach it: FN_E2E_KAFKA, FN_E2E_MOSQUITTO, FN_E2E_REGISTRY,
FN_E2E_REDIS (each host:port), FN_E2E_POSTGRESQL (a connection string). `tests/cluster/in.sh` sets all of them.
FN_E2E_WHEEL: FleetFn for images, from `prepare.py`; without it that which runs here is built.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubectl_command import Kubectl
from user_of_a_cluster import User

BASE_IMAGE = Path(__file__).parents[2] / "scripts" / "base_image.sh"


def named(variable: str) -> str:
    """Its value; without one the test is skipped, and fails in CI."""
    value = os.environ.get(variable, "")
    if not value:
        text = f"{variable} is not set; run it so: tests/cluster/in.sh pytest tests/e2e"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    return value


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    return Path(named("FN_E2E_KUBECONFIG"))


@pytest.fixture(scope="session")
def kafka_address() -> str:
    """host:port, the same for pods and for tests; so of all below."""
    return named("FN_E2E_KAFKA")


@pytest.fixture(scope="session")
def mosquitto_address() -> str:
    return named("FN_E2E_MOSQUITTO")


@pytest.fixture(scope="session")
def registry_address() -> str:
    """What images' names begin with, for who pushes them and for the node that pulls them. It speaks plain HTTP."""
    return named("FN_E2E_REGISTRY")


@pytest.fixture(scope="session")
def redis_address() -> str:
    return named("FN_E2E_REDIS")


@pytest.fixture(scope="session")
def postgresql() -> str:
    """A connection string, with a password."""
    return named("FN_E2E_POSTGRESQL")


@pytest.fixture(scope="session")
def everywhere(kubeconfig: Path) -> Kubectl:
    """For what is in no namespace, or in others'."""
    return Kubectl(kubeconfig)


@pytest.fixture(scope="session")
def fresh_namespace(everywhere: Kubectl) -> Iterator[Callable[[str], Kubectl]]:
    """Makes namespaces, which are deleted in the end."""
    made = []

    def make(name: str) -> Kubectl:
        full = f"e2e-{name[:40]}-{time.time_ns() % 16**8:08x}"
        everywhere("create", "namespace", full)
        made.append(full)
        kubectl = Kubectl(Path(named("FN_E2E_KUBECONFIG")), full)
        # Kubernetes adds these a moment later; without the account it forbids pods.
        for each in ("serviceaccount/default", "configmap/kube-root-ca.crt"):
            kubectl("wait", "--for=create", "--timeout=120s", each)
        return kubectl

    yield make
    if made:
        everywhere("delete", "namespace", "--wait=false", *made)


@pytest.fixture(scope="module")
def kubectl(request: pytest.FixtureRequest, fresh_namespace: Callable[[str], Kubectl]) -> Kubectl:
    """In a namespace of the module's own."""
    return fresh_namespace(request.module.__name__.removeprefix("test_").replace("_", "-"))


@pytest.fixture(scope="module")
def user_of(
    tmp_path_factory: pytest.TempPathFactory,
    kubeconfig: Path,
    kafka_address: str,
    mosquitto_address: str,
    redis_address: str,
    registry_address: str,
    python_image: str,
) -> Callable[..., User]:
    """Makes users of namespaces: `env` is what their functions' workers have as variables. State is in Redis."""

    def make(kubectl: Kubectl, **env: str) -> User:
        place = {
            "namespace": kubectl.namespace,
            "registry": f"{registry_address}/{kubectl.namespace}",
            "insecure": True,
            "base": python_image,
            "env": env,
            "keda": {"polling": "1s"},
            "dapr": {"image": "daprio/daprd:1.14.0"},
        }
        store = {"type": "state.redis", "metadata": [{"name": "redisHost", "value": redis_address}]}
        environment = {
            "name": "e2e",
            "target": {"kubernetes": place},
            "connections": [
                {"name": "kafka", "kafka": {"brokers": [kafka_address]}},
                {"name": "mqtt", "mqtt": {"url": f"mqtt://{mosquitto_address}"}},
            ],
            "state": {"dapr": {"component": "vehicles", **store}},
        }
        user = User(tmp_path_factory.mktemp(kubectl.namespace), kubectl, kubeconfig, environment)
        user.start_client(python_image)
        return user

    return make


@pytest.fixture(scope="session")
def base_tarball() -> Path:
    """An image with Python, as an archive."""
    done = subprocess.run([str(BASE_IMAGE)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def python_image(base_tarball: Path, registry_address: str) -> str:
    """The same in the registry, by the name that pods give it."""
    import e2e_images  # noqa: PLC0415 - the builder is needed by few

    return e2e_images.push(base_tarball, e2e_images.python_image(base_tarball, registry_address))
