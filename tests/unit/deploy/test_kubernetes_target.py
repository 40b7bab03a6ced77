"""A deploy to a cluster, from its first look to the end, over an API server in memory."""

import asyncio
import time
from dataclasses import replace

import msgspec
import pytest
from fleetfn.errors import TargetError
from fleetfn_deploy.kubernetes import turns
from fleetfn_deploy.kubernetes.images import KnownImages
from fleetfn_deploy.kubernetes.target import KubernetesTarget
from fleetfn_deploy.target import Digest, Source
from fleetfn_spec.cluster import GATEWAY
from fleetfn_spec.gateway import GatewayStatus, TriggerRows
from fleetfn_spec.load import load_function
from memory_cluster import MemoryCluster, RefusedError, fleet_environment

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: hello}}
spec:
  handler: handler:hello
  scale: {{max: {scale}}}
  triggers:
  - {{name: web, http: {{path: /hello}}}}
  - {{name: told, kafka: {{topic: told}}}}
"""


class Gateway:
    def __init__(self):
        self.rows = {}

    def gateway(self):
        return GatewayStatus(pid=1, data="/data", bytes=0, quota=0, functions=self.rows)


class Place:
    def __init__(self, folder):
        self.folder = folder
        self.server = MemoryCluster()
        self.images = KnownImages(image("gateway", 0))
        self.gateway = Gateway()
        self.environment = fleet_environment()
        self.now = 1000.0
        self.target = self.another()
        self.steps = []

    def another(self, **more):
        return KubernetesTarget(
            self.server.cluster(),
            self.images,
            **{"limit": 0.2, "clock": self.clock, "gateway": self.gateway, **more},
        )

    def clock(self):
        self.now += 1
        return self.now

    def source(self, number, scale=1):
        (self.folder / "function.yaml").write_text(FUNCTION.format(scale=scale))
        (self.folder / "handler.py").write_text(f"# {number}\ndef hello(name: str) -> str:\n    return name\n")
        self.images.references["hello"] = image("hello", number)
        return Source(self.folder, load_function(self.folder))

    async def deploy(self, what):
        return await self.target.deploy(what, self.environment, progress=self.steps.append)

    def ours(self):
        return {
            (plural, name)
            for (plural, _, name), thing in self.server.objects.items()
            if (thing["metadata"].get("labels") or {}).get("fleetfn.dev/function") == "hello"
        }


def image(name, number):
    return f"registry.test/fleet/{name}@sha256:{number:064x}"


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def failing(name, message, plural="pods", verb="create", times=100):
    """Refuses one object."""
    left = iter(range(times))

    def refuse(asked_verb, asked_plural, asked_name, body):
        if (asked_verb, asked_plural) != (verb, plural) or not asked_name.startswith(name):
            return None
        return RefusedError(403, message, "Forbidden") if next(left, None) is not None else None

    return refuse


def broken(server, key, thing):
    """Check pods of this cluster end with exit code 1."""
    if key[0] == "pods" and thing is not None and "-check-" in key[2]:
        ended = {"exitCode": 1, "reason": "Error"}
        thing["status"] = {
            "phase": "Failed",
            "containerStatuses": [{"name": "worker", "state": {"terminated": ended}}],
        }
        server.logs[key[2], "worker"] = [b'{"level": "error", "message": "handler.py does not import"}']


async def test_the_first_deploy_makes_the_gateway_and_everything_of_the_function(place):
    revision = await place.deploy(place.source(1))
    assert (revision.number, revision.serving, revision.urls) == (1, True, ["http://hello.fleet.svc/hello"])
    assert GATEWAY in place.server.of("statefulsets")
    assert {"fleetfn-ca", "fleetfn-gateway-tls", "fleetfn-scaler-tls", "hello-tls"} <= set(place.server.of("secrets"))
    assert place.server.of("deployments")["hello"]["spec"]["replicas"] == 0
    assert place.server.of("pods") == {}
    assert place.server.of("leases") == {}


async def test_the_head_comes_after_the_deployment(place):
    await place.deploy(place.source(1))
    applied = [(plural, name) for verb, plural, name in place.server.calls if verb == "patch"]
    assert applied.index(("deployments", "hello")) < applied.index(("configmaps", "hello"))


async def test_replicas_stay_those_of_keda(place):
    await place.deploy(place.source(1))
    key = ("deployments", "fleet", "hello")
    place.server.applied[key] = {
        manager: said for manager, said in place.server.applied[key].items() if manager == "fleetfn"
    } | {"keda": {"spec": {"replicas": 3}}}
    place.server.objects[key]["spec"]["replicas"] = 3
    await place.deploy(place.source(2))
    assert place.server.objects[key]["spec"]["replicas"] == 3


async def test_a_check_that_fails_tells_the_log_and_leaves_the_old_revision(place):
    first = await place.deploy(place.source(1))
    before = place.ours()
    place.server.controllers.insert(0, broken)
    with pytest.raises(TargetError) as caught:
        await place.deploy(place.source(2))
    assert "exit code 1" in caught.value.message
    assert "handler.py does not import" in caught.value.message
    assert "goes on serving" in caught.value.hint
    (status,) = await place.target.status("hello")
    assert status.revision.digest == first.digest
    assert place.ours() == before


async def test_a_secret_that_is_missing_is_told(place):
    def waits(server, key, thing):
        if key[0] == "pods" and thing is not None and "-check-" in key[2]:
            thing["status"] = {"phase": "Pending"}

    place.server.controllers.append(waits)
    event = {"metadata": {"name": "e"}, "type": "Warning", "message": 'secret "kafka" not found'}
    place.server.objects["events", "fleet", "e"] = event
    with pytest.raises(TargetError, match='is starting: secret "kafka" not found'):
        await place.deploy(place.source(1))


async def test_a_first_deploy_that_fails_leaves_nothing(place):
    place.server.controllers.insert(0, broken)
    with pytest.raises(TargetError):
        await place.deploy(place.source(1))
    assert place.ours() == set()


async def test_what_fails_after_the_check_is_put_back(place):
    await place.deploy(place.source(1))
    image_before = place.server.of("deployments")["hello"]["spec"]["template"]["spec"]["containers"][0]["image"]
    place.server.refusals.append(failing("hello", "not now", "scaledobjects", "patch", times=1))
    with pytest.raises(TargetError) as caught:
        await place.deploy(place.source(2))
    assert "goes on serving" in caught.value.hint
    deployment = place.server.of("deployments")["hello"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image_before
    assert len(await place.target.revisions("hello")) == 1


async def test_a_full_quota_is_told(place):
    text = 'pods "x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=5, limited: pods=5'
    place.server.refusals.append(failing("hello-check", text))
    with pytest.raises(TargetError, match="ResourceQuota small is exceeded"):
        await place.deploy(place.source(1))


async def test_another_owner_s_objects_are_refused_by_name(place):
    theirs = {"metadata": {"name": "hello", "labels": {"app.kubernetes.io/managed-by": "Helm"}}}
    place.server.objects["services", "fleet", "hello"] = theirs
    place.server.objects["serviceaccounts", "fleet", "hello"] = {"metadata": {"name": "hello"}}
    with pytest.raises(TargetError) as caught:
        await place.deploy(place.source(1))
    assert "Service hello: managed by Helm" in caught.value.message
    assert "ServiceAccount hello: it has no label" in caught.value.message
    assert place.ours() == set()


async def test_a_cluster_that_goes_away_says_what_is_applied(place):
    await place.deploy(place.source(1))

    def goes(server, key, thing):
        if (key[0], key[2]) == ("services", "hello"):
            server.gone = True

    place.server.controllers.append(goes)
    with pytest.raises(TargetError) as caught:
        await place.deploy(place.source(2))
    assert "not applied: Deployment hello" in caught.value.message
    assert "may be run again" in caught.value.hint
    place.server.gone = False
    place.server.controllers.pop()
    del place.server.objects["leases", "fleet", "fleetfn-hello"]
    assert (await place.deploy(place.source(2))).number == 2


async def test_one_of_two_deploys_at_once_is_told_who_has_the_turn(place):
    async with turns.turn(place.server.cluster(), "hello"):
        with pytest.raises(TargetError, match="hello is being deployed by"):
            await place.deploy(place.source(1))
    await place.deploy(place.source(1))


async def test_a_turn_of_somebody_who_died_is_taken_over(place):
    source = place.source(1)
    dead = {"holderIdentity": "a@b:1", "leaseDurationSeconds": 60, "renewTime": "2026-01-01T00:00:00.000000Z"}
    place.server.objects["leases", "fleet", "fleetfn-hello"] = {
        "metadata": {"name": "fleetfn-hello", "resourceVersion": "1"},
        "spec": dead,
    }
    await place.deploy(source)


async def test_conflicts_name_who_has_the_field(place):
    await place.deploy(place.source(1))
    place.server.applied["services", "fleet", "hello"]["kubectl-edit"] = {"spec": {"type": "NodePort"}}
    with pytest.raises(TargetError) as caught:
        await place.deploy(place.source(2))
    assert ".spec.type is kept by kubectl-edit" in caught.value.message
    forced = place.another(force=True)
    await forced.deploy(place.source(2), place.environment, progress=place.steps.append)


async def test_a_plan_names_changes_of_the_function_and_of_objects_and_makes_nothing(place):
    first = await place.target.plan(place.source(1), place.environment)
    assert (first.serving, first.changes, place.ours()) == (None, [], set())
    assert "Deployment hello is made" in first.notes
    await place.deploy(place.source(1))
    same = await place.target.plan(place.source(1), place.environment)
    assert same.changes == []
    other = await place.target.plan(place.source(2), place.environment)
    assert [each.field for each in other.changes] == ["source"]
    wider = await place.target.plan(place.source(2, scale=4), place.environment)
    fields = [each.field for each in wider.changes]
    assert "spec.scale.max" in fields
    assert "ScaledObject hello spec.maxReplicaCount" in fields
    assert "PodDisruptionBudget hello" in fields


async def test_a_plan_sees_what_was_changed_by_hand(place):
    await place.deploy(place.source(1))
    place.server.objects["scaledobjects", "fleet", "hello"]["spec"]["maxReplicaCount"] = 9
    plan = await place.target.plan(place.source(1), place.environment)
    assert [(each.field, each.old, each.new) for each in plan.changes] == [
        ("ScaledObject hello spec.maxReplicaCount", 9, 1)
    ]


async def test_rollback_makes_a_kept_revision_serve_under_a_new_number(place):
    first = await place.deploy(place.source(1))
    await place.deploy(place.source(2))
    back = await place.target.rollback("hello")
    assert (back.digest, back.number) == (first.digest, 3)
    assert [(each.number, each.serving) for each in await place.target.revisions("hello")] == [(3, True), (2, False)]
    again = await place.target.deploy(Digest("hello", first.digest), place.environment, progress=place.steps.append)
    assert again.number == 3


async def test_ten_revisions_are_kept(place):
    for number in range(1, 13):
        await place.deploy(place.source(number))
    assert [each.number for each in await place.target.revisions("hello")] == list(range(12, 2, -1))


async def test_what_a_revision_no_longer_needs_goes(place):
    await place.deploy(place.source(1, scale=4))
    assert ("poddisruptionbudgets", "hello") in place.ours()
    await place.deploy(place.source(2, scale=1))
    assert ("poddisruptionbudgets", "hello") not in place.ours()


async def test_a_pause_of_what_somebody_else_applies_is_refused_before_anything_is_changed(place):
    await place.deploy(place.source(1))
    head = ("configmaps", "fleet", "hello")
    place.server.applied[head]["flux"] = {"data": place.server.objects[head]["data"]}
    before = place.server.of("scaledobjects")["hello"]["spec"]
    with pytest.raises(TargetError, match="is kept by flux"):
        await place.target.pause("hello")
    assert place.server.of("scaledobjects")["hello"]["spec"] == before


async def test_pause_survives_a_redeploy_and_keda_no_longer_asks_kafka(place):
    await place.deploy(place.source(1))
    status = await place.target.pause("hello", ["told"])
    assert [each.name for each in status.triggers if each.paused] == ["told"]
    triggers = place.server.of("scaledobjects")["hello"]["spec"]["triggers"]
    assert [each["type"] for each in triggers] == ["external-push"]
    await place.deploy(place.source(2))
    (status,) = await place.target.status("hello")
    assert [each.name for each in status.triggers if each.paused] == ["told"]
    status = await place.target.resume("hello")
    assert not any(each.paused for each in status.triggers)
    triggers = place.server.of("scaledobjects")["hello"]["spec"]["triggers"]
    assert [each["type"] for each in triggers] == ["kafka", "external-push"]
    with pytest.raises(TargetError, match="no trigger 'nobody'"):
        await place.target.pause("hello", ["nobody"])


async def test_delete_removes_all_of_the_function_and_nothing_else(place):
    await place.deploy(place.source(1))
    others = {key for key in place.server.objects if (key[0], key[2]) not in place.ours()}
    await place.target.delete("hello", keep_state=True)
    assert place.ours() == set()
    assert set(place.server.objects) == others


async def test_the_gateway_goes_only_when_no_function_is_left(place):
    await place.deploy(place.source(1))
    with pytest.raises(TargetError, match="serves hello"):
        await place.target.delete_gateway(keep_data=False)
    await place.target.delete("hello", keep_state=True)
    await place.target.delete_gateway(keep_data=False)
    assert set(place.server.objects) == {("namespaces", "", "fleet")}


async def test_a_later_gateway_is_left_as_it_is(place):
    await place.deploy(place.source(1))
    gateway = place.server.objects["statefulsets", "fleet", GATEWAY]
    gateway["metadata"]["annotations"]["fleetfn.dev/version"] = "99.1"
    gateway["spec"]["template"]["spec"]["containers"][0]["image"] = "later"
    await place.deploy(place.source(2))
    gateway = place.server.objects["statefulsets", "fleet", GATEWAY]
    assert gateway["spec"]["template"]["spec"]["containers"][0]["image"] == "later"


async def test_another_gateway_that_does_not_start_leaves_the_one_there_is(place):
    await place.deploy(place.source(1))
    before = place.server.objects["statefulsets", "fleet", GATEWAY]
    place.images.gateway_reference = image("gateway", 7)
    place.server.controllers.append(unpullable)
    with pytest.raises(TargetError, match=r"new image does not start: image '\S+' cannot be pulled") as caught:
        await place.deploy(place.source(2))
    assert "The gateway that is there serves on" in caught.value.hint
    assert place.server.objects["statefulsets", "fleet", GATEWAY] == before
    assert ("pods", "fleet", f"{GATEWAY}-check") not in place.server.objects


def unpullable(server, key, thing):
    if key[0] == "pods" and thing is not None and key[2] == f"{GATEWAY}-check":
        [container] = thing["spec"]["containers"]
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
        found = {"name": container["name"], "image": container["image"], "state": waiting}
        thing["status"] = {"phase": "Pending", "containerStatuses": [found]}


async def test_a_gateway_that_never_started_is_replaced(place):
    """As a StatefulSet would not: it waits for its pod to be ready."""
    await place.deploy(place.source(1))
    labels = {"controller-revision-hash": "before"}
    waiting = {"name": "gateway", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    pod = {"metadata": {"name": f"{GATEWAY}-0", "labels": labels}, "status": {"containerStatuses": [waiting]}}
    place.server.objects["pods", "fleet", f"{GATEWAY}-0"] = pod

    def waits(server, key, thing):
        if key[0] == "statefulsets" and ("pods", "fleet", f"{GATEWAY}-0") in server.objects:
            thing["status"] |= {"readyReplicas": 0, "updateRevision": "now"}
        elif key == ("pods", "fleet", f"{GATEWAY}-0") and thing is None:
            server.objects["statefulsets", "fleet", GATEWAY]["status"]["readyReplicas"] = 1

    place.server.controllers.append(waits)
    place.images.gateway_reference = image("gateway", 7)
    await place.deploy(place.source(2))
    assert ("pods", "fleet", f"{GATEWAY}-0") not in place.server.objects


async def test_status_tells_pods_rows_and_complaints(place):
    await place.deploy(place.source(1))
    place.gateway.rows = {"hello": {"web": TriggerRows(waiting=3, dead=1)}}
    (asleep,) = await place.target.status()
    assert (asleep.phase, asleep.dead_letters) == ("sleeping", 1)
    place.server.objects["pods", "fleet", "hello-1"] = {
        "metadata": {
            "name": "hello-1",
            "creationTimestamp": "2026-11-21T10:00:00Z",
            "labels": {"fleetfn.dev/function": "hello", "fleetfn.dev/part": "worker"},
        },
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T10:00:02Z"}]},
    }
    place.server.objects["scaledobjects", "fleet", "hello"]["status"]["conditions"] = [
        {"type": "Ready", "status": "False", "message": "no such topic"}
    ]
    (running,) = await place.target.status("hello")
    assert (running.phase, running.cold_start, running.workers[0].name) == ("running", 2.0, "hello-1")
    assert running.problems == ["KEDA: Ready=False: no such topic"]


async def test_images_are_built_off_the_loop(place):
    """A build takes a while: whoever waits for the deploy can be cancelled meanwhile."""
    source = place.source(1)

    class Slow(KnownImages):
        def image(self, *args):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)
            return super().image(*args)

    loop = asyncio.get_running_loop()
    place.images = Slow(place.images.gateway_reference, place.images.references)
    await place.another().deploy(source, place.environment, progress=place.steps.append)


STATE = {"dapr": {"component": "vehicles", "type": "state.in-memory"}}


async def test_state_goes_by_a_pod_of_its_own_unless_it_is_kept(place):
    place.environment = fleet_environment(state=STATE)
    for kept in (True, False):
        await place.deploy(place.source(1))
        made = len(place.server.calls)
        await place.target.delete("hello", keep_state=kept)
        pods = [name for verb, plural, name in place.server.calls[made:] if (verb, plural) == ("delete", "pods")]
        assert any(name.startswith("hello-forget-") for name in pods) is not kept
    assert place.ours() == set()


async def test_state_that_an_earlier_revision_kept_goes_by_a_pod_of_that_one(place):
    place.environment = fleet_environment(state=STATE)
    await place.deploy(place.source(1))
    [head] = [each for each in await place.target.revisions("hello") if each.serving]
    place.environment = fleet_environment()
    await place.deploy(place.source(2))
    made = len(place.server.calls)
    await place.target.delete("hello", keep_state=False)
    assert ("delete", "pods", f"hello-forget-{head.digest[:12]}") in place.server.calls[made:]


async def test_state_that_cannot_be_removed_keeps_the_function_s_head_for_another_try(place):
    place.environment = fleet_environment(state=STATE)
    await place.deploy(place.source(1))
    place.server.refusals.append(failing("hello-forget", "no", times=1))
    with pytest.raises(TargetError, match="the state of hello could not be removed"):
        await place.target.delete("hello", keep_state=False)
    await place.target.delete("hello", keep_state=False)
    assert place.ours() == set()


async def test_what_becomes_of_a_trigger_that_is_removed_is_told(place):
    await place.deploy(place.source(1))
    place.gateway.rows = {"hello": {"told": TriggerRows(waiting=2)}}
    source = place.source(2)
    one = msgspec.structs.replace(source.function.spec, triggers=source.function.spec.triggers[:1])
    fewer = replace(source, function=msgspec.structs.replace(source.function, spec=one))
    (note,) = (await place.target.plan(fewer, place.environment)).notes
    assert note.startswith("trigger told is removed: its offsets stay in Kafka; 2 events stay in the inbox")
    await place.deploy(fewer)
    assert note in place.steps
    (status,) = await place.target.status("hello")
    assert "trigger told is removed: 2 events stay" in status.problems[0]


def awake(status):
    """A controller: the function has a pod of the new revision that does not get ready."""

    def control(server, key, thing):
        if key[0] == "deployments" and thing is not None:
            thing["status"] = {"observedGeneration": thing["metadata"]["generation"], "replicas": 1, **status}

    return control


def crashing(revision=None):
    """A controller: a pod of the function crashes, which is of this revision or of the new one."""

    def control(server, key, thing):
        if key[0] != "deployments" or thing is None:
            return
        labels = thing["spec"]["template"]["metadata"]["labels"]
        waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 3}}}
        server.objects["pods", "fleet", "hello-2"] = {
            "metadata": {
                "name": "hello-2",
                "labels": labels | ({"fleetfn.dev/revision": revision} if revision else {}),
                "creationTimestamp": "2026-11-21T10:00:00Z",
            },
            "status": {"containerStatuses": [{"name": "worker", **waiting}]},
        }
        server.logs["hello-2", "worker"] = [b"no memory"]

    return control


async def test_a_rollout_that_crashes_tells_the_log_and_is_put_back(place):
    await place.deploy(place.source(1))
    place.server.controllers += [awake({}), crashing()]
    with pytest.raises(TargetError, match=r"exit code 3 \(Error\)\n  no memory") as caught:
        await place.deploy(place.source(2))
    assert "Revision 1" in caught.value.hint


async def test_a_pod_of_an_earlier_revision_that_crashes_does_not_keep_a_new_one_away(place):
    await place.deploy(place.source(1))
    place.server.controllers += [awake({}), crashing("0123456789ab")]
    with pytest.raises(TargetError, match=r"was not ready after 0 s: revision \w+ is starting"):
        await place.deploy(place.source(2))


async def test_a_rollout_without_room_tells_the_quota(place):
    await place.deploy(place.source(1))
    text = "exceeded quota: small, requested: pods=1, used: pods=5, limited: pods=5"
    place.server.controllers.append(
        awake(
            {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": f'pods "x" is forbidden: {text}'}]}
        )
    )
    with pytest.raises(TargetError, match="no room for a pod of hello in the namespace: ResourceQuota small"):
        await place.deploy(place.source(2))


async def test_what_does_not_get_ready_in_time_is_put_back(place):
    await place.deploy(place.source(1))
    place.server.controllers.append(awake({}))
    with pytest.raises(TargetError, match=r"was not ready after 0 s: revision \w+ is starting"):
        await place.deploy(place.source(2))


async def test_an_export_is_everything_but_keys_and_asks_no_cluster(place):
    place.server.gone = True
    things = await place.target.export(place.source(1), place.environment)
    found = [(each["kind"], each["metadata"]["name"]) for each in things]
    assert found[-1] == ("ConfigMap", "hello")
    assert ("StatefulSet", GATEWAY) in found
    assert "Secret" not in {kind for kind, _ in found}
    assert await place.target.export(place.source(1), place.environment) == things


async def test_what_was_exported_is_as_old_as_its_objects(place):
    """An export says no time, so that it stays equal."""
    for each in await place.target.export(place.source(1), place.environment):
        await place.server.cluster().apply(each)
    (info,) = await place.target.revisions("hello")
    (status,) = await place.target.status()
    assert time.time() - info.created < 60
    assert time.time() - status.revision.created < 60


async def test_certificates_are_made_for_what_gitops_has_applied(place):
    await place.deploy(place.source(1))
    for name in place.server.of("secrets"):
        del place.server.objects["secrets", "fleet", name]
    await place.target.certify()
    assert set(place.server.of("secrets")) == {"fleetfn-ca", "fleetfn-gateway-tls", "fleetfn-scaler-tls", "hello-tls"}
