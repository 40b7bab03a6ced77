"""Rules of the kubernetes target: what pods can be given, what KEDA can be told, which names are taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fleetfn_triggers.secret import Secret

from fleetfn_spec import secrets
from fleetfn_spec.environments import CONNECTION_KINDS, Connection, Environment
from fleetfn_spec.function import Function
from fleetfn_spec.kubernetes import KubernetesTarget
from fleetfn_spec.places import Path
from fleetfn_spec.walk import there

Found = Iterator[tuple[Path, str, str]]

_FILES = ("ca", "certificate", "key")
_TAKEN = re.compile(r"fleetfn-.*|default|kubernetes|keda|.*-(tls|r[0-9a-f]{12})")
"""Names of the gateway's and Kubernetes' own objects, of certificates (`keda` is KEDA's), and of what is beside another
function.
"""
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_OURS = ("fleetfn.dev/", "app.kubernetes.io/")

_ONLY_SECRETS = "in a cluster values come from Secrets"
_WRITE = "write {secret: name/key}"


def environment(environment: Environment, path: Path) -> Found:
    """Of an environment whose target is a cluster."""
    target = environment.target.kubernetes
    if target is not None:
        yield from _references(target.env, (*path, "target", "kubernetes", "env"))
    for i, connection in enumerate(environment.connections):
        yield from _connection(connection, (*path, "connections", i))
    state = environment.state.dapr if there(environment.state) and environment.state is not None else None
    if state is None:
        return
    yield from _references(state, (*path, "state", "dapr"))
    if state.type is None and any(each.dapr is not None and each.dapr.components for each in environment.connections):
        hint = "give state a type, or leave out `components`: a pod has one sidecar"
        yield (*path, "state", "dapr"), "is the cluster's own component, and a connection gives components", hint


def _connection(connection: Connection, path: Path) -> Found:
    yield from _references(connection, path)
    if there(connection.kafka) and connection.kafka is not None and not connection.kafka.brokers:
        yield (*path, "kafka"), "names no brokers, and a cluster has none of its own", "give it brokers"
    for kind in ("kafka", "mqtt"):
        block = getattr(connection, kind)
        tls = block.tls if there(block) else None
        for field in _FILES if there(tls) else ():
            if isinstance(where := getattr(tls, field), str):
                hint = "make it a Secret and write {secret: name/key}"
                yield (*path, kind, "tls", field), f'the file "{where}" is not in pods', hint


def _references(value: Any, path: Path) -> Found:
    for at, reference in secrets.in_struct(value, path):
        if reference.secret is None:
            yield at, f"{reference}: {_ONLY_SECRETS}", _WRITE


def function(function: Function, environment: Environment, target: KubernetesTarget) -> Found:
    """Of a function that goes to a cluster."""
    yield from _name(function)
    yield from _labels(function)
    for list_, items in (("triggers", function.spec.triggers), ("outputs", function.spec.outputs)):
        for i, item in enumerate(items):
            yield from _use(item, list_, environment, ("spec", list_, i))
    yield from _variables(function, target)


def _name(function: Function) -> Found:
    if _TAKEN.fullmatch(function.name):
        yield ("metadata", "name"), f'"{function.name}" is a name of other objects in a namespace', "choose another"


def _labels(function: Function) -> Found:
    for key, value in function.metadata.labels.items():
        at = ("metadata", "labels", key)
        if not _LABEL_KEY.fullmatch(key) or key.startswith(_OURS):
            yield at, f'"{key}" cannot be a label in Kubernetes', "write letters, digits, '-', '_' and '.'"
        elif not _LABEL_VALUE.fullmatch(value):
            hint = "write letters, digits, '-', '_' and '.', at most 63"
            yield at, f'"{value}" cannot be a label\'s value in Kubernetes', hint


def _use(used: Any, list_: str, environment: Environment, path: Path) -> Found:
    kind = next((kind for kind in CONNECTION_KINDS if getattr(used, kind, None) is not None), None)
    if kind is None:
        return
    connection = environment.connection(used.connection or kind)
    if connection is None:
        if used.connection is None and not (kind == "dapr" and environment.state is not None):
            missing = f'the environment "{environment.name}" has no connection "{kind}"'
            yield (*path, kind), f"{missing}, and a cluster has no brokers of its own", "add it to the environment"
    elif list_ == "triggers" and _checks_no_names(connection):
        hint = "KEDA asks the brokers, too, and knows only `verify: hostname` and `none`"
        yield (*path, kind), f'the connection "{connection.name}" does not check host names', hint


def _checks_no_names(connection: Connection) -> bool:
    tls = connection.kafka.tls if connection.kafka is not None else None
    return tls is not None and tls.verify == "certificate"


def _variables(function: Function, target: KubernetesTarget) -> Found:
    """{env: NAME} of a function is portable: a node has an env file, an environment in a cluster says what NAME is."""
    for at, reference in of_function(function):
        if reference.env is not None and reference.env not in target.env:
            hint = f"add {reference.env} to `env` of the environment's target"
            yield at, f"{reference}: the environment does not say what {reference.env} is", hint


def of_function(function: Function) -> Iterator[tuple[Path, Secret]]:
    """References in `config` and in headers of http outputs, each with its path."""
    for path, reference in secrets.references(function.spec.config):
        yield ("spec", "config", *path), reference
    for i, output in enumerate(function.spec.outputs):
        for name, value in output.http.headers.items() if output.http is not None else ():
            if isinstance(value, Secret):
                yield ("spec", "outputs", i, "http", "headers", name), value
