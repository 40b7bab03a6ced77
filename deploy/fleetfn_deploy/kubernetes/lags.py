"""How much waits in Kafka, as KEDA sees it: the metric by which it scales, read as the autoscaler reads it."""

from __future__ import annotations

import contextlib
from urllib.parse import quote

from fleetfn.errors import TargetError

from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.kinds import Kind, Object, name_of

_METRICS = Kind("external.metrics.k8s.io/v1beta1", "ExternalMetricValueList", "metrics")


async def of(cluster: Cluster, scaled: Object | None) -> dict[str, int]:
    """By trigger; without those that KEDA cannot tell now, or may not be asked for."""
    if scaled is None:
        return {}
    names = (scaled.get("status") or {}).get("externalMetricNames") or []
    found = {}
    for number, trigger in enumerate(scaled["spec"]["triggers"]):
        metric = next((each for each in names if each.startswith(f"s{number}-")), None)
        if metric is not None and trigger["type"] == "kafka":
            with contextlib.suppress(TargetError):
                found[trigger["name"]] = await _value(cluster, str(metric), name_of(scaled))
    return found


async def _value(cluster: Cluster, metric: str, scaled: str) -> int:
    path = f"/apis/{_METRICS.api}/namespaces/{cluster.namespace}/{quote(metric, safe='')}"
    answer = await cluster.read(_METRICS, path, labels=f"scaledobject.keda.sh/name={scaled}")
    return round(sum(_number(each["value"]) for each in answer["items"]))


def _number(quantity: str) -> float:
    """`12`, `1500m`, `3k`."""
    units = {"m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9}
    return float(quantity[:-1]) * units[quantity[-1]] if quantity[-1] in units else float(quantity)
