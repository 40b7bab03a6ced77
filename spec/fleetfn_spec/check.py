"""Rules across fields: what the types of function.yaml and environments.yaml alone cannot say.

Each rule is a generator of (path, message, hint). A rule that meets a value that could not be read gives up quietly:
that problem is known already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import Any

from fleetfn_triggers import dapr_output, http, http_output, keys, kinds, mqtt_topics
from fleetfn_triggers.trigger import Kind
from msgspec import UnsetType

from fleetfn_spec import check_kubernetes, durations, secrets
from fleetfn_spec.environments import CONNECTION_KINDS, Connection, Environment, Environments
from fleetfn_spec.function import OUTPUT_KINDS, Function, Output, RetryPolicy, Spec, Trigger
from fleetfn_spec.nearest import did_you_mean
from fleetfn_spec.places import Path, Places
from fleetfn_spec.problems import Problem
from fleetfn_spec.walk import TouchedBrokenError, there

Found = Iterator[tuple[Path, str, str]]

NOWHERE = Places("function.yaml")
"""For a function that did not come from a file: problems without lines."""


def check_spec(function: Function, places: Places) -> list[Problem]:
    """The rules that need nothing but the function itself."""
    return _run([_names, _returns, _scale, _retries, _routes, _each_trigger, _outputs], function, places)


def check_function(function: Function, environment: Environment, places: Places = NOWHERE) -> list[Problem]:
    """The rules that need the environment: connections of the right kind, references that its target can resolve."""

    def connections(function: Function) -> Found:
        for list_, i, name, used in _connection_uses(function.spec):
            kind = _kind_of(used)
            if kind is not None:
                yield from _connection(environment, used.connection, kind, ("spec", list_, i, "connection"), name)

    target = environment.target.kubernetes
    if target is None:
        return _run([connections, _config_secrets], function, places)

    def cluster(function: Function) -> Found:
        yield from check_kubernetes.function(function, environment, target)

    return _run([connections, cluster], function, places)


def check_environments(environments: Environments, places: Places) -> list[Problem]:
    return _run([_environment_names, _targets, _states, _connections, _clusters], environments, places)


def _run(rules: Iterable[Callable[[Any], Found]], value: object, places: Places) -> list[Problem]:
    found: list[Problem] = []
    for rule in rules:
        try:
            found.extend(places.problem(*each) for each in rule(value))
        except TouchedBrokenError:
            continue
    return found


def _quietly(rule: Found) -> Found:
    """A rule for one item of a list, so that a broken item does not hide what is wrong with the others."""
    try:
        yield from rule
    except TouchedBrokenError:
        return


def _twice(items: Iterable[Any], at: Path, what: str) -> Found:
    seen: dict[str, int] = {}
    for i, item in enumerate(items):
        try:
            name: str = item.name
            first = seen.setdefault(name, i)
        except TouchedBrokenError:
            continue
        if first != i:
            yield (
                (*at, i, "name"),
                f'two {what} are named "{name}"',
                f"{at[-1]}[{first}] has it; rename one",
            )


# a function


def _names(function: Function) -> Found:
    yield from _twice(function.spec.triggers, ("spec", "triggers"), "triggers")


def _outputs(function: Function) -> Found:
    yield from _twice(function.spec.outputs, ("spec", "outputs"), "outputs")
    for i, output in enumerate(function.spec.outputs):
        yield from _quietly(_output(output, ("spec", "outputs", i)))


def _output(output: Output, path: Path) -> Found:
    given = [name for name in OUTPUT_KINDS if there(getattr(output, name))]
    if len(given) != 1:
        wrong = f"has {' and '.join(given)}" if given else "says nothing of where it goes"
        yield path, wrong, f"give it exactly one of {' or '.join(OUTPUT_KINDS)}"
    elif output.http is not None:
        if output.connection is not None:
            yield (*path, "connection"), "http outputs need no connection", "leave it out"
        for field, message, hint in http_output.problems(output.http):
            yield (*path, "http", *field), message, hint
    elif output.mqtt is not None:
        for message, hint in mqtt_topics.output_problems(output.mqtt.topic):
            yield (*path, "mqtt", "topic"), message, hint
    elif output.dapr is not None:
        for field, message, hint in dapr_output.problems(output.dapr):
            yield (*path, "dapr", *field), message, hint


def _returns(function: Function) -> Found:
    names = [output.name for output in function.spec.outputs]
    uses: list[tuple[Path, object]] = [(("spec", "returns"), function.spec.returns)]
    uses += [(("spec", "triggers", i, "returns"), each.returns) for i, each in enumerate(function.spec.triggers)]
    for path, name in uses:
        if isinstance(name, str) and name not in names:
            yield path, f'there is no output "{name}"', did_you_mean(name, names, what="outputs")


def _scale(function: Function) -> Found:
    scale = function.spec.scale
    if scale.min > scale.max:
        yield ("spec", "scale", "min"), f"{scale.min} is more than max, {scale.max}", "raise max or lower min"


def _retries(function: Function) -> Found:
    yield from _quietly(_retry(function.spec.retry, ("spec", "retry")))
    for i, trigger in enumerate(function.spec.triggers):
        if there(trigger.retry) and trigger.retry is not None:
            yield from _quietly(_retry(trigger.retry, ("spec", "triggers", i, "retry")))


def _retry(retry: RetryPolicy, path: Path) -> Found:
    # str: patterns do not touch what could not be read, as rules must
    if durations.seconds(str(retry.initial)) > durations.seconds(str(retry.max)):
        yield (*path, "initial"), f'"{retry.initial}" is longer than max, "{retry.max}"', "raise max or lower initial"


def _routes(function: Function) -> Found:
    for (i, a), (j, b) in combinations(enumerate(function.spec.triggers), 2):
        yield from _quietly(_clash(a, b, i, ("spec", "triggers", j, "http", "path")))


def _clash(a: Trigger, b: Trigger, first: int, path: Path) -> Found:
    if a.http is not None and b.http is not None and (route := http.clash(a.http, b.http)) is not None:
        yield path, f"{route} is taken twice", f"triggers[{first}] takes it already; change a path or the methods"


def _each_trigger(function: Function) -> Found:
    for i, trigger in enumerate(function.spec.triggers):
        yield from _quietly(_trigger(trigger, ("spec", "triggers", i)))


def _trigger(trigger: Trigger, path: Path) -> Found:
    given = [name for name in kinds.KINDS if there(getattr(trigger, name))]
    if len(given) != 1:
        choice = " or ".join(kinds.KINDS)
        wrong = f"has {' and '.join(given)}" if given else "says nothing of what wakes the function"
        yield path, wrong, f"give it exactly one of {choice}"
        return
    kind = kinds.KINDS[given[0]]
    yield from _expressions(trigger, kind.envelope, path)
    for complaint in kind.check(getattr(trigger, kind.name), trigger.key_expression):
        yield (*path, *complaint.field.split(".")), complaint.message, complaint.hint
    if kind.connection is None and trigger.connection is not None:
        yield (*path, "connection"), f"{kind.name} triggers need no connection", "leave it out"
    if kind.name == "cron":
        yield from _clock(trigger, path)
    if there(trigger.batch) and trigger.batch is not None:
        yield from _quietly(_batch(trigger.batch.by, trigger, kind, path))


def _batch(by: str, trigger: Trigger, kind: Kind, path: Path) -> Found:
    if kind.unbatched:
        why = f"{kind.name} triggers have no batches: {kind.unbatched}"
        yield (*path, "batch"), why, "take one event at a time"
    elif by == "key" and trigger.key_expression is None:
        yield (*path, "batch", "by"), "the trigger has no key", "give it one, or leave `by` out"


def _clock(trigger: Trigger, path: Path) -> Found:
    """Its events are FleetFn's own."""
    for name in ("decode", "event"):
        if getattr(trigger, name) != getattr(_NO_TRIGGER, name):
            yield (
                (*path, name),
                f"a cron trigger has no {name}: its events are made here, with id and time",
                "leave it out",
            )


_NO_TRIGGER = Trigger(name="none")


def _expressions(trigger: Trigger, envelope: frozenset[str], path: Path) -> Found:
    given = envelope | keys.DATA
    for at, text, roots in (
        (("key",), trigger.key, given | keys.ATTRIBUTES),
        (("event", "id"), trigger.event.id, given),
        (("event", "time"), trigger.event.time, given),
    ):
        if text is None or isinstance(text, UnsetType):
            continue
        try:
            keys.parse(text, roots)
        except keys.ExpressionError as exc:
            yield (*path, *at), exc.message, exc.hint
    if trigger.decode is not None and isinstance(trigger.key, str) and trigger.key.startswith("data."):
        others = ", ".join(sorted((envelope | keys.ATTRIBUTES) - keys.DATA))
        hint = f"the key is needed before the data is decoded; use {others}"
        yield (*path, "key"), f'"{trigger.key}" cannot be read from data that `decode` makes', hint
    if trigger.decode is not None and there(trigger.mqtt) and trigger.mqtt is not None:
        for name, text in (("id", trigger.event.id), ("time", trigger.event.time)):
            if text is not None and text.startswith("data."):
                hint = "the gateway, which makes the event, does not run `decode`; leave it out"
                yield (*path, "event", name), f'"{text}" cannot be read from data that `decode` makes', hint


# a function in its environment


def _kind_of(used: Any) -> str | None:
    return next((kind for kind in CONNECTION_KINDS if getattr(used, kind, None) is not None), None)


def _connection_uses(spec: Spec) -> Iterator[tuple[str, int, str, Any]]:
    lists: tuple[tuple[str, list[Any]], ...] = (("triggers", spec.triggers), ("outputs", spec.outputs))
    for list_, items in lists:
        for i, item in enumerate(items):
            yield list_, i, item.name, item


def _connection(environment: Environment, named: str | None, kind: str, path: Path, user: str) -> Found:
    connection = environment.connection(named or kind)
    if connection is None:
        if named is not None:
            known = [each.name for each in environment.connections]
            missing = f'the environment "{environment.name}" has no connection "{named}"'
            yield path, missing, did_you_mean(named, known, what="connections")
    elif getattr(connection, kind, None) is None:
        yield path, f'"{user}" needs a {kind} connection; "{connection.name}" is none', "name another connection"


def _config_secrets(function: Function) -> Found:
    for path, reference in check_kubernetes.of_function(function):
        if reference.secret is not None:
            yield path, f"{reference}: {secrets.NO_KUBERNETES}", secrets.NO_KUBERNETES_HINT


# environments


def _environment_names(environments: Environments) -> Found:
    yield from _twice(environments.environments, ("environments",), "environments")


def _targets(environments: Environments) -> Found:
    for i, environment in enumerate(environments.environments):
        yield from _quietly(_target(environment, ("environments", i, "target")))


def _target(environment: Environment, path: Path) -> Found:
    given = [name for name in ("node", "kubernetes") if there(getattr(environment.target, name))]
    if not given:
        yield path, "names no target", "write target: {node: {}}"
    elif len(given) > 1:
        yield path, f"has {' and '.join(given)}", "give it exactly one: a second place is an environment of its own"


def _states(environments: Environments) -> Found:
    for i, environment in enumerate(environments.environments):
        yield from _quietly(_state(environment, ("environments", i, "state")))


def _state(environment: Environment, path: Path) -> Found:
    if there(environment.state) and there(environment.target.node):
        hint = "leave it out; outputs can use a Dapr sidecar on a node, too"
        yield path, "a node keeps state in files of its own, not in a Dapr component", hint


def _connections(environments: Environments) -> Found:
    for i, environment in enumerate(environments.environments):
        yield from _quietly(_environment_connections(environment, ("environments", i, "connections")))


def _clusters(environments: Environments) -> Found:
    for i, environment in enumerate(environments.environments):
        path = ("environments", i)
        yield from _quietly(check_kubernetes.environment(environment, path) if _in_cluster(environment) else iter(()))


def _in_cluster(environment: Environment) -> bool:
    try:
        return there(environment.target.kubernetes)
    except TouchedBrokenError:
        return False


def _environment_connections(environment: Environment, at: Path) -> Found:
    yield from _twice(environment.connections, at, "connections")
    for i, connection in enumerate(environment.connections):
        yield from _quietly(_environment_connection(connection, (*at, i)))
        if not _in_cluster(environment):
            yield from _quietly(_connection_of_a_node(connection, (*at, i)))


def _environment_connection(connection: Connection, path: Path) -> Found:
    given = [name for name in CONNECTION_KINDS if there(getattr(connection, name))]
    if len(given) != 1:
        wrong = f"has {' and '.join(given)}" if given else "says nothing of how to reach it"
        yield path, wrong, f"give it exactly one of {' or '.join(CONNECTION_KINDS)}"


def _connection_of_a_node(connection: Connection, path: Path) -> Found:
    if there(connection.dapr) and connection.dapr is not None and connection.dapr.components:
        yield (*path, "dapr", "components"), "a node starts no sidecars", "give the components to the one that runs"
    for at, reference in secrets.in_struct(connection, path):
        if reference.secret is not None:
            yield at, f"{reference}: {secrets.NO_KUBERNETES}", secrets.NO_KUBERNETES_HINT
