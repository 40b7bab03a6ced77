"""The gateway of a namespace: made with its first function, there for all of them, never older than it was."""

from __future__ import annotations

import re

from fleetfn.errors import TargetError
from fleetfn_spec.cluster import GATEWAY

from fleetfn_deploy.kubernetes import applying, errands, gateway_objects, kinds, metadata, render
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Object
from fleetfn_deploy.kubernetes.refusals import UnreachableError
from fleetfn_deploy.kubernetes.values import Installation
from fleetfn_deploy.kubernetes.waiting import Wait
from fleetfn_deploy.target import Progress


async def ensure(cluster: Cluster, installation: Installation, wait: Wait, progress: Progress, *, force: bool) -> None:
    """It is applied, of this version or a later one. Its certificates are there already. Another image is tried first:
    there is one gateway, which ends before its successor starts.
    """
    live = await cluster.get(kinds.STATEFUL_SET, GATEWAY)
    if live is not None and (version := _newer(live)):
        progress(f"the gateway is of fleetfn {version}, later than this one: it is left as it is")
        return
    things = [_with_claims_of(live, each) for each in render.gateway_objects(installation)]
    await applying.check_owners(cluster, things, None)
    if live is None:
        progress(f"making the gateway of namespace {cluster.namespace}")
    elif _image(live) != installation.gateway_image:
        await _try(cluster, installation, wait, progress)
    await applying.apply(cluster, things, force=force)


async def _try(cluster: Cluster, installation: Installation, wait: Wait, progress: Progress) -> None:
    progress("trying the gateway's new image in a pod of its own")
    try:
        await errands.run(cluster, [], gateway_objects.trial(installation), wait)
    except UnreachableError:
        raise
    except TargetError as error:
        raise TargetError(
            f"the gateway's new image does not start: {error.message}",
            hint=f"{error.hint} The gateway that is there serves on, and so does what was deployed.".strip(),
        ) from error


def _image(live: Object) -> str:
    found: str = live["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def _newer(live: Object) -> str:
    """Its version, where that is later than this one."""
    theirs = (live["metadata"].get("annotations") or {}).get(metadata.VERSION, "")
    return theirs if _numbers(theirs) > _numbers(metadata.version()) else ""


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found is not None else ()


def _with_claims_of(live: Object | None, thing: Object) -> Object:
    """A set's volume claims cannot be changed: another size or class is for a gateway that is made anew."""
    if live is None or thing["kind"] != kinds.STATEFUL_SET.name:
        return thing
    claims = [
        {
            **{field: each[field] for field in ("apiVersion", "kind", "spec") if field in each},
            "metadata": {field: each["metadata"][field] for field in ("name", "labels") if field in each["metadata"]},
        }
        for each in live["spec"].get("volumeClaimTemplates") or []
    ]
    if not claims:
        return thing
    return {**thing, "spec": {**thing["spec"], "volumeClaimTemplates": claims}}
