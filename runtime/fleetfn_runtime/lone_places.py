"""What a worker that runs by itself reaches: one of the environments in a file, and whether it says enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fleetfn.errors import FleetError, UsageError
from fleetfn_spec.environments import LOCAL, Environment, Environments
from fleetfn_spec.function import Function, Output, Trigger
from fleetfn_spec.load import load_environments, read_environments

MOUNT = "mount an environments.yaml that does, e.g. docker run -v $PWD/environments.yaml:{}:ro ..."


def environment(folder: Path, name: str | None, file: Path | None = None) -> Environment:
    """`file` where it exists, else the nearest environments.yaml. Without a name: `local`, or the only one of `file`.

    Raises UsageError, SpecError.
    """
    if file is not None and file.exists():
        if file.is_dir():
            raise UsageError(
                f"{file} is a folder, not a file of environments",
                hint="Docker makes a folder where the file to be mounted does not exist: look at its path",
            )
        found: tuple[Environments, Path] | None = (read_environments(file), file)
    else:
        file, found = None, load_environments(folder)
    known = {one.name: one for one in found[0].environments} if found is not None else {}
    if name is not None:
        if name in known:
            return known[name]
        where = str(found[1]) if found is not None else "no environments.yaml was found"
        hint = f"known: {', '.join(known)} ({where})" if known else where
        raise UsageError(f'there is no environment "{name}"', hint=hint)
    if LOCAL.name in known or file is None:
        return known.get(LOCAL.name, LOCAL)
    if len(known) == 1:
        return next(iter(known.values()))
    raise UsageError(
        f"{file} has several environments: {', '.join(known)}", hint="name one in the variable FLEETFN_ENVIRONMENT"
    )


def check_addresses(function: Function, place: Environment, file: Path | None) -> None:
    """Every connection that the function uses has an address. `file`: where an image reads environments. Raises
    FleetError.
    """
    missing = dict.fromkeys(_missing(function, place))
    if not missing:
        return
    hint = "name its address in environments.yaml, or run the function on a node, which has a broker to try with"
    raise FleetError(
        f'{"; ".join(missing)}, and environment "{place.name}" gives no address',
        hint=hint if file is None else MOUNT.format(file),
    )


def _missing(function: Function, place: Environment) -> Iterator[str]:
    kinds = {"kafka": "Kafka", "mqtt": "MQTT"}
    users: list[tuple[str, Trigger | Output]] = [(f'trigger "{one.name}"', one) for one in function.spec.triggers]
    users += [(f'output "{one.name}"', one) for one in function.spec.outputs]
    for who, one in users:
        for kind, shown in kinds.items():
            if getattr(one, kind) is None:
                continue
            name = one.connection or kind
            found = place.connection(name)
            if found is None or not _has_address(found, kind):
                yield f'{who} needs the {shown} connection "{name}"'


def _has_address(connection: object, kind: str) -> bool:
    of = getattr(connection, kind)
    return of is not None and (kind != "kafka" or bool(of.brokers))
