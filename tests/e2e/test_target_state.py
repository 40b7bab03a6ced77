"""A function with state and a topic, by `fn`'s own calls: run by hand, paused, deleted with its state or without."""

import asyncio
import time
import uuid

import pytest
from built_functions import images, place, source
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from fleetfn_deploy.kubernetes import access
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.platform import NamespacePlatform
from fleetfn_deploy.kubernetes.target import KubernetesTarget
from fleetfn_spec.control import InvokeRequest

pytestmark = pytest.mark.e2e

DAPRD = "docker.io/daprio/daprd:1.14.0"
FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: counts}}
spec:
  handler: handler:count
  scale: {{idle: 2s}}
  triggers:
  - {{name: told, key: data.v, kafka: {{topic: {topic}}}}}
  - {{name: web, key: path.v, http: {{path: "/counts/{{v}}"}}}}
"""
CODE = """
from dataclasses import dataclass
from fleetfn import State

@dataclass
class Count:
    n: int = 0

def count(event: dict, state: State[Count]) -> int:
    state.value.n += 1
    return state.value.n
"""


@pytest.fixture(scope="module")
def topic(kafka_address):
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka_address})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    return name


@pytest.fixture
def environment(kubectl, registry_address, python_image, redis_address, kafka_address):
    redis = {
        "component": "vehicles",
        "type": "state.redis",
        "metadata": [{"name": "redisHost", "value": redis_address}],
    }
    kafka = {"brokers": [kafka_address]}
    more = {"dapr": {"image": DAPRD}, "keda": {"polling": "1s"}}
    return place(kubectl, registry_address, python_image, more, state={"dapr": redis}, kafka=kafka)


@pytest.fixture
def reached(kubeconfig):
    return access.find(kubeconfig=str(kubeconfig))


@pytest.fixture
def platform(reached, kubectl):
    return NamespacePlatform(reached, kubectl.namespace, images())


@pytest.fixture
def deploy(reached, kubectl, environment, topic, tmp_path):
    async def deployed():
        async with Cluster(reached, kubectl.namespace) as cluster:
            target = KubernetesTarget(cluster, images(), limit=120)
            what = source(tmp_path, CODE, FUNCTION.format(topic=topic))
            return await target.deploy(what, environment, progress=lambda _: None)

    return lambda: asyncio.run(deployed())


def count(platform, vehicle):
    event = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "e2e", "type": "t", "data": {"v": vehicle}}
    return platform.invoke("counts", InvokeRequest(trigger="web", key=vehicle, event=event)).reply["body"]


def until(look, seconds=180):
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.5)
    return found


def test_state_outlives_a_function_that_is_deleted_only_where_it_is_kept(platform, deploy):
    deploy()
    assert [count(platform, "v1"), count(platform, "v1")] == [1, 2]
    assert (platform.states("counts").keys, platform.state("counts", "v1").value) == (["v1"], {"n": 2})
    platform.delete("counts", keep_state=True)
    deploy()
    assert count(platform, "v1") == 3
    platform.delete("counts", keep_state=False)
    deploy()
    assert count(platform, "v1") == 1


def test_a_paused_topic_wakes_nobody_and_is_read_when_it_is_resumed(platform, deploy, topic, kafka_address):
    deploy()
    platform.pause("counts", ["told"])
    until(lambda: platform.function("counts").phase == "sleeping")
    producer = Producer({"bootstrap.servers": kafka_address})
    for _ in range(3):
        producer.produce(topic, b'{"v": "v2"}')
    assert producer.flush(30) == 0
    time.sleep(5)  # KEDA looks once a second
    assert platform.function("counts").phase == "sleeping"
    platform.resume("counts")
    until(lambda: "v2" in platform.states("counts").keys and platform.state("counts", "v2").value == {"n": 3})
    until(lambda: platform.function("counts").triggers[0].backlog == 0)
    until(lambda: count(platform, "v3") and any(platform.logs("counts")))  # it may have fallen asleep
