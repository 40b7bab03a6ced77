"""What `fleetfn` shows to handlers, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import fleetfn


def test_the_members_are_these_and_sorted():
    assert fleetfn.__all__ == [
        "Batch",
        "Config",
        "Context",
        "Event",
        "FleetError",
        "Reject",
        "Request",
        "Response",
        "Retry",
        "Snapshot",
        "State",
        "Tick",
    ]
    assert all(hasattr(fleetfn, name) for name in fleetfn.__all__)


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_loads_nothing_heavy():
    loaded = modules_after("import fleetfn, fleetfn.binder, fleetfn.cloudevents.http, fleetfn.cloudevents.kafka")
    assert not loaded & {"pydantic", "pydantic_core", "yaml", "typer", "rich", "uvicorn", "confluent_kafka", "json"}
    assert not {name for name in loaded if name.startswith("fleetfn_")}


def test_binding_a_struct_does_not_load_pydantic():
    handler = "class T(msgspec.Struct): a: int = 0\ndef handler(data: T, state: State[T], config: Config[T]): ..."
    bound = "bind(handler, trigger=BindInfo(name='t', kind='kafka', has_key=True, function='f', config={'a': 1}))"
    loaded = modules_after(
        f"import msgspec\nfrom fleetfn import *\nfrom fleetfn.binder import BindInfo, bind\n{handler}\n{bound}"
    )
    assert "pydantic" not in loaded
