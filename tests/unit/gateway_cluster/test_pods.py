"""Which pods take work: what the kubelet says, what they say themselves, and waking those that sleep."""

import asyncio
import time

import msgspec
import pytest
from fleetfn_gateway.cluster import activity
from fleetfn_gateway.cluster.activity import Asking
from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.kube_objects import Pod
from fleetfn_gateway.cluster.owner import ClusterOwner
from fleetfn_gateway.cluster.pods import LOST, Pods
from fleetfn_gateway.dispatch import Load
from fleetfn_gateway.owner import NoWorkerError
from fleetfn_plumbing.http_client import Reply, UnreachableError
from fleetfn_spec.cluster import Activity, Here
from gateway_doubles import until


def pod(name="f-1", *, ip="10.0.0.1", ready=False, ending=False, phase="Running", function="f", **status):
    meta = {"name": name, "labels": {"fleetfn.dev/function": function, "fleetfn.dev/revision": "abc"}}
    if ending:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [{"type": "Ready", "status": str(ready)}, *status.pop("conditions", [])]
    body = {"metadata": meta, "status": {"phase": phase, "podIP": ip, "conditions": conditions, **status}}
    return msgspec.convert(body, Pod)


class Worker:
    """A pod's delivery port, as its client."""

    def __init__(self):
        self.says = None
        self.asked = []
        self.posted = []

    async def request(self, method, path, body=b"", **_):
        self.asked.append(time.monotonic())
        if method == "POST":
            self.posted.append((path, msgspec.json.decode(body)["triggers"]))
            return Reply(204, {}, b"")
        if self.says is None:
            raise UnreachableError("nobody listens")
        return Reply(200, {}, msgspec.json.encode(self.says))

    async def close(self):
        pass


class Place:
    def __init__(self):
        self.changed = []
        self.pods = Pods(self.changed.append)
        self.demand = Demand(self.pods, lambda _: Load())
        self.owner = ClusterOwner(self.pods, self.demand, lambda: self.away, limit=0.2)
        self.away = ""
        self.workers = {}
        self.paused = {}
        self.counted = []
        self.asking = Asking(self.pods, lambda _, place: self.worker(place), self.paused.get, self.count)

    def count(self, pod, figures):
        self.counted.append((pod.name, figures.counters.done))

    def worker(self, place):
        return self.workers.setdefault(place, Worker())

    async def see(self, *pods):
        await self.pods.replace(list(pods))
        self.asking.follow()

    def ready(self):
        return [each.name for each in self.pods.ready("f")]


@pytest.fixture
async def place():
    place = Place()
    yield place
    await place.asking.close()


async def test_the_kubelets_word_counts_where_a_pod_says_nothing(place):
    await place.see(pod(ready=False))
    assert place.ready() == []
    await place.see(pod(ready=True), pod("f-2", ip="", ready=True), pod("f-3", ready=True, phase="Failed"))
    assert place.ready() == ["f-1"]
    assert place.changed == ["f"]


async def test_a_pod_that_is_being_deleted_takes_nothing_more(place):
    await place.see(pod(ready=True))
    await place.see(pod(ready=True, ending=True))
    assert place.ready() == []
    await place.pods.change(pod(ready=True), True)
    assert place.pods.all() == []


async def test_a_pod_that_says_it_is_ready_is_so_before_the_kubelet_knows(place, monkeypatch):
    monkeypatch.setattr(activity, "READY", 60.0)
    await place.see(pod())
    worker = await until(lambda: place.workers.get("https://10.0.0.1:8443"))
    owner = ClusterOwner(place.pods, place.demand, str)
    waiting = asyncio.create_task(owner.wake("f", 1))
    await until(lambda: len(worker.asked) > 2)
    assert max(b - a for a, b in zip(worker.asked, worker.asked[1:], strict=False)) < activity.READY / 2
    worker.says = Activity(ready=False)
    await until(lambda: place.pods.all()[0].told is False)
    assert place.ready() == []
    worker.says = Activity(ready=True)
    assert await waiting == ["https://10.0.0.1:8443"]


async def test_a_pod_says_where_it_is_before_the_api_server_does(place):
    await place.see(pod(ip=""))
    owner = ClusterOwner(place.pods, place.demand, str)
    waiting = asyncio.create_task(owner.wake("f", 1))
    place.pods.here("f", Here(pod="f-1", address="10.0.0.1"))
    assert await waiting == ["https://10.0.0.1:8443"]
    (seen,) = place.pods.all()
    await place.see(pod(ip=""))
    await place.see(pod())
    assert place.pods.all() == [seen]
    assert place.changed == ["f"]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("g", Here(pod="f-1", address="10.0.0.2")),
        ("f", Here(pod="f-2", address="10.0.0.2")),
        ("f", Here(pod="f-1", address="10.0.0.2")),
    ],
    ids=["another function's", "unknown", "elsewhere"],
)
async def test_a_word_of_no_pod_that_is_known_is_passed_over(place, function, said):
    await place.see(pod())
    place.pods.here(function, said)
    assert place.ready() == []
    assert [each.address for each in place.pods.all()] == ["10.0.0.1"]


async def test_a_pod_that_drains_says_so_first(place):
    await place.see(pod(ready=True))
    place.workers["https://10.0.0.1:8443"] = Worker()
    place.worker("https://10.0.0.1:8443").says = Activity(ready=False)
    await until(lambda: place.ready() == [])


async def test_a_pod_whose_machine_is_gone_is_ready_no_more_whatever_is_told_of_it(place, monkeypatch):
    monkeypatch.setattr(activity, "READY", 0.01)
    await place.see(pod(ready=True))
    worker = place.worker("https://10.0.0.1:8443")
    worker.says = Activity(ready=True)
    await until(lambda: place.pods.all()[0].told)
    worker.says = None
    await until(lambda: place.pods.all()[0].missed >= LOST)
    assert place.ready() == []


async def test_one_that_crashes_is_not_ready_as_soon_as_both_say_so(place):
    await place.see(pod(ready=True))
    worker = place.worker("https://10.0.0.1:8443")
    worker.says = Activity(ready=True)
    await until(lambda: place.pods.all()[0].told)
    place.pods.all()[0].missed = 1
    place.pods.update("f")
    assert place.ready() == ["f-1"]
    await place.pods.change(pod(ready=False), False)
    assert place.ready() == []


async def test_a_new_address_is_another_pod(place):
    await place.see(pod(ip=""))
    assert place.workers == {}
    await place.see(pod(ip="fd00::7", ready=True))
    assert place.pods.ready("f")[0].place == "https://[fd00::7]:8443"


async def test_pods_are_told_at_once_of_what_is_paused_from_now_on(place, monkeypatch):
    monkeypatch.setattr(activity, "READY", 60.0)
    worker = place.worker("https://10.0.0.1:8443")
    worker.says = Activity(ready=True)
    await place.see(pod(ready=False))
    await until(lambda: place.ready() == ["f-1"])
    place.paused["f"] = ("live",)
    place.asking.hurry()
    await until(lambda: worker.posted == [("/pause", ["live"])])


async def test_triggers_paused_by_hand_are_told_where_they_are_not_known(place, monkeypatch):
    monkeypatch.setattr(activity, "READY", 0.01)
    place.paused["f"] = ("live",)
    await place.see(pod(ready=True))
    worker = place.worker("https://10.0.0.1:8443")
    worker.says = Activity(ready=True, paused=("other",))
    await until(lambda: len(worker.posted) >= 2)
    assert worker.posted[:2] == [("/pause", ["live"]), ("/resume", ["other"])]
    worker.says = Activity(ready=True, paused=("live",))
    asked = len(worker.asked)
    await until(lambda: len(worker.asked) > asked + 3)
    posted = len(worker.posted)
    asked = len(worker.asked)
    await until(lambda: len(worker.asked) > asked + 2)
    assert len(worker.posted) == posted


async def test_requests_at_pods_make_a_function_wanted_and_are_its_amount(place):
    await place.see(pod(ready=True))
    worker = place.worker("https://10.0.0.1:8443")
    worker.says = Activity(ready=True, in_flight=3, last=0.0)
    await until(lambda: place.demand.wanted("f"))
    assert place.demand.amount("f") == 3.0
    seen = place.pods.all()[0]
    seen.in_flight, seen.idle = 0, 1.0
    assert place.demand.wanted("f")
    seen.idle = 60.0
    assert not place.demand.wanted("f")


async def test_while_somebody_waits_a_function_is_wanted(place):
    waiting = asyncio.create_task(place.owner.wake("f", 1))
    await until(lambda: place.demand.wanted("f"))
    with pytest.raises(NoWorkerError):
        await waiting
    assert place.demand.wanted("f")  # a moment longer


async def test_without_keda_that_is_said(place):
    with pytest.raises(NoWorkerError, match="KEDA does not listen") as refused:
        await place.owner.wake("f", 1)
    assert refused.value.after == 0.0


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            {
                "containerStatuses": [
                    {"name": "w", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}}
                ]
            },
            "pod f-1: ImagePullBackOff: no",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "w",
                        "state": {"waiting": {"reason": "ContainerCreating"}},
                        "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}},
                    }
                ]
            },
            "container w ended with exit code 3 (Error)",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}]},
            "pod f-1: Unschedulable: 0/1",
        ),
        ({"initContainerStatuses": [{"name": "daprd", "state": {"running": {}}}]}, "pod f-1 is not ready yet"),
    ],
)
async def test_why_a_pod_does_not_come_up_is_told_in_kubernetes_words(place, status, said):
    await place.see(pod(**status))
    with pytest.raises(NoWorkerError, match="no pod of 'f' is ready") as refused:
        await place.owner.wake("f", 1)
    assert said in refused.value.message


async def test_while_pods_cannot_be_seen_that_is_why(place):
    place.away = "the API server does not answer"
    with pytest.raises(NoWorkerError, match="the API server does not answer"):
        await place.owner.wake("f", 1)
