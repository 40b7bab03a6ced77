"""An API server in memory, and controllers that are at once done: what a deploy to a cluster asks, without a cluster.

Server-side apply keeps what each manager says: fields that a manager no longer names go, fields that another one says
otherwise are conflicts. Lists are one value.
"""

import copy
import datetime as dt
import itertools
import json
import re
from dataclasses import dataclass
from urllib.parse import parse_qs

import httpx
import msgspec
from fleetfn_deploy.kubernetes.access import Access
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_spec.environments import Environments

PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<part>log))?"
)


def access():
    return Access(server="https://cluster.test", context="test", namespace="fleet", authorization=lambda: "Bearer t")


def fleet_environment(state=None, **more):
    """An environment whose target is the namespace `fleet`. `more`: of the target."""
    given = {
        "name": "prod",
        "target": {"kubernetes": {"namespace": "fleet", "registry": "registry.test/fleet", **more}},
    }
    given["connections"] = [{"name": "kafka", "kafka": {"brokers": ["kafka.test:9092"]}}]
    if state is not None:
        given["state"] = state
    whole = {"apiVersion": "fleetfn.dev/v1alpha1", "kind": "Environments", "environments": [given]}
    return msgspec.convert(whole, Environments).environments[0]


class RefusedError(Exception):
    def __init__(self, status, message, reason="", **details):
        super().__init__(message)
        self.status = status
        self.body = {"kind": "Status", "message": message, "reason": reason, "code": status, "details": details}


@dataclass
class Asked:
    verb: str
    found: re.Match
    body: dict | None
    query: dict
    content: str

    @property
    def name(self):
        return self.found["name"] or ((self.body or {}).get("metadata") or {}).get("name")

    @property
    def key(self):
        return self.found["plural"], self.found["namespace"] or "", self.name


class MemoryCluster:
    def __init__(self, namespaces=("fleet",)):
        self.objects = {}
        self.applied = {}  # key -> manager -> what it said last
        self.calls = []
        self.logs = {}
        self.denied = set()  # (verb, plural)
        self.ruled = ["*"]  # plurals that one rule allows
        self.unknown = set()  # plurals that nobody serves
        self.refusals = []  # callables: (verb, plural, name, body) -> RefusedError | None
        self.controllers = [control]
        self.minor = "35"
        self.gone = False
        self._versions = itertools.count(1)
        for namespace in namespaces:
            self.objects["namespaces", "", namespace] = {"metadata": {"name": namespace}}

    def cluster(self, namespace=None):
        return Cluster(access(), namespace, transport=httpx.MockTransport(self.answer))

    def of(self, plural, namespace="fleet"):
        return {
            name: thing for (kind, within, name), thing in self.objects.items() if (kind, within) == (plural, namespace)
        }

    async def answer(self, request):
        if self.gone:
            raise httpx.ConnectError("connection refused", request=request)
        try:
            status, body = self._answer(request)
        except RefusedError as refused:
            status, body = refused.status, refused.body
        if isinstance(body, bytes):
            return httpx.Response(status, stream=httpx.ByteStream(body))
        return httpx.Response(status, json=body)

    def _answer(self, request):
        path, query = request.url.path, {name: each[0] for name, each in parse_qs(request.url.query.decode()).items()}
        if path == "/version":
            return 200, {"major": "1", "minor": self.minor}
        found = PATH.fullmatch(path)
        if found is None:
            return 200, {"resources": [{"name": name} for name in self._served(path)]}
        body = json.loads(request.content) if request.content else None
        verb = {"GET": "get" if found["name"] else "list", "POST": "create", "PATCH": "patch", "PUT": "update"}.get(
            request.method, "delete"
        )
        self.calls.append((verb, found["plural"], found["name"]))
        if found["plural"] == "selfsubjectaccessreviews":
            asked = body["spec"]["resourceAttributes"]
            return 201, {"status": {"allowed": (asked["verb"], asked["resource"]) not in self.denied}}
        if found["plural"] == "selfsubjectrulesreviews":
            return 201, {"status": {"resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": self.ruled}]}}
        asked = Asked(verb, found, body, query, request.headers.get("content-type", ""))
        self._check(asked)
        return getattr(self, f"_{verb}")(asked)

    def _served(self, path):
        if not path.startswith(("/apis/keda.sh", "/apis/dapr.io", "/apis/http.keda.sh")):
            raise RefusedError(404, "the server could not find the requested resource", "NotFound")
        kinds = {"scaledobjects", "triggerauthentications", "components", "interceptorroutes"} - self.unknown
        if not kinds:
            raise RefusedError(404, "the server could not find the requested resource", "NotFound")
        return kinds

    def _check(self, asked):
        plural, namespace = asked.found["plural"], asked.found["namespace"]
        if plural in self.unknown:
            raise RefusedError(404, "the server could not find the requested resource", "NotFound")
        if (asked.verb, plural) in self.denied:
            group = f'in API group "{asked.found["group"] or ""}" in the namespace "{namespace}"'
            text = f'{plural} is forbidden: User "u" cannot {asked.verb} resource "{plural}" {group}'
            raise RefusedError(403, text, "Forbidden")
        for each in self.refusals:
            if refused := each(asked.verb, plural, asked.name, asked.body):
                raise refused
        if asked.verb in {"create", "patch"} and namespace and ("namespaces", "", namespace) not in self.objects:
            raise RefusedError(
                404, f'namespaces "{namespace}" not found', "NotFound", kind="namespaces", name=namespace
            )

    def _get(self, asked):
        if asked.found["part"] == "log":
            lines = self.logs.get((asked.found["name"], asked.query["container"]), [])
            return 200, b"".join(b"2026-01-01T00:00:00.%09dZ %s\n" % (i, line) for i, line in enumerate(lines))
        key = asked.key
        if key not in self.objects:
            raise RefusedError(404, f'{key[0]} "{key[2]}" not found', "NotFound", kind=key[0], name=key[2])
        return 200, self.objects[key]

    def _list(self, asked):
        wanted = [each.split("=") for each in asked.query.get("labelSelector", "").split(",") if each]
        items = [
            thing
            for (plural, namespace, _), thing in self.objects.items()
            if plural == asked.found["plural"]
            and (asked.found["namespace"] is None or namespace == asked.found["namespace"])
            and all((thing["metadata"].get("labels") or {}).get(name) == value for name, value in wanted)
        ]
        return 200, {"items": items, "metadata": {}}

    def _create(self, asked):
        key = asked.key
        if key in self.objects:
            raise RefusedError(409, f'{key[0]} "{key[2]}" already exists', "AlreadyExists")
        return 201, self._write(key, asked.body)

    def _update(self, asked):
        key = asked.key
        if asked.body["metadata"].get("resourceVersion") not in {
            None,
            self.objects[key]["metadata"]["resourceVersion"],
        }:
            raise RefusedError(409, "the object has been modified", "Conflict")
        return 200, self._write(key, asked.body)

    def _delete(self, asked):
        key = asked.key
        if key not in self.objects:
            raise RefusedError(404, f'{key[0]} "{key[2]}" not found', "NotFound", kind=key[0], name=key[2])
        self.applied.pop(key, None)
        gone = self.objects.pop(key)
        for each in self.controllers:
            each(self, key, None)
        return 200, gone

    def _patch(self, asked):
        key = asked.key
        live = self.objects.get(key)
        if asked.content.startswith("application/merge-patch"):
            return 200, self._write(key, merged(live, asked.body))
        manager = asked.query["fieldManager"]
        said = copy.deepcopy(self.applied.get(key, {}))
        if asked.query["force"] != "true":
            conflicts = [
                {"reason": "FieldManagerConflict", "field": "." + ".".join(path), "message": f'conflict with "{other}"'}
                for other, theirs in said.items()
                if other != manager
                for path, value in leaves(theirs)
                if (mine := at(asked.body, path)) is not None and mine != value
            ]
            if conflicts:
                raise RefusedError(409, "Apply failed with conflicts", "Conflict", causes=conflicts)
        else:
            said = {
                other: without(theirs, asked.body) if other != manager else theirs for other, theirs in said.items()
            }
        thing = copy.deepcopy(live) if live else {}
        kept = [path for other, theirs in said.items() if other != manager for path, _ in leaves(theirs)]
        for path, _ in leaves(said.get(manager, {})):
            if at(asked.body, path) is None and path not in kept:
                drop(thing, path)
        said[manager] = asked.body
        thing = merged(thing, asked.body)
        thing["metadata"]["managedFields"] = [
            {"manager": each, "fieldsV1": {"f:spec": {f"f:{name}": {} for name in (it.get("spec") or {})}}}
            for each, it in said.items()
        ]
        if asked.query.get("dryRun"):
            return 200, defaulted({**thing, "metadata": {**thing["metadata"], "uid": "dry"}})
        self.applied[key] = said
        return 200, self._write(key, thing)

    def _write(self, key, thing):
        before = self.objects.get(key)
        thing = defaulted(copy.deepcopy(thing))
        meta = thing["metadata"]
        old = before["metadata"] if before else {}
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta.setdefault("uid", old.get("uid") or f"uid-{next(self._versions)}")
        meta["creationTimestamp"] = old.get("creationTimestamp", now)
        changed = before is None or before.get("spec") != thing.get("spec")
        meta["generation"] = old.get("generation", 0) + (1 if changed else 0)
        meta["resourceVersion"] = str(next(self._versions))
        self.objects[key] = thing
        for each in self.controllers:
            each(self, key, thing)
        return self.objects[key]


def defaulted(thing):
    """A default, so that comparing has one to ignore."""
    if thing.get("kind") == "Deployment":
        thing["spec"].setdefault("replicas", 1)
        thing["spec"].setdefault("revisionHistoryLimit", 10)
    return thing


def control(server, key, thing):
    """Deployments are rolled out, KEDA is content, pods that are to end have ended."""
    if thing is None:
        return
    if key[0] in {"deployments", "statefulsets"}:
        count = thing["spec"].get("replicas", 1)
        thing["status"] = {
            "observedGeneration": thing["metadata"]["generation"],
            **dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas"), count),
        }
    elif key[0] == "scaledobjects":
        thing["status"] = {"conditions": [{"type": "Ready", "status": "True", "message": ""}]}
    elif key[0] == "pods" and "status" not in thing:
        thing["status"] = {
            "phase": "Succeeded",
            "containerStatuses": [
                {"name": each["name"], "state": {"terminated": {"exitCode": 0}}} for each in thing["spec"]["containers"]
            ],
        }


def merged(old, new):
    if not isinstance(old, dict) or not isinstance(new, dict):
        return copy.deepcopy(new)
    found = dict(old)
    for name, value in new.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from leaves(each, (*path, name))
    elif path[:1] not in {("apiVersion",), ("kind",)} and path != ("metadata", "name"):
        yield path, value


def at(value, path):
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def drop(value, path):
    for name in path[:-1]:
        value = value.get(name, {})
    value.pop(path[-1], None)


def without(theirs, mine):
    kept = copy.deepcopy(theirs)
    for path, value in leaves(theirs):
        if at(mine, path) not in {None, value} if not isinstance(value, (dict, list)) else at(mine, path) is not None:
            drop(kept, path)
    return kept


__all__ = ["MemoryCluster", "RefusedError", "access", "fleet_environment"]
