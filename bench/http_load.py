"""The load on an HTTP server: wrk, which keeps 32 connections busy with one request after the other."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from cores import pinned

CONNECTIONS = 32
WARM = 1
"""Seconds of load before those that count."""

SECONDS = 4
PATIENCE = 20
"""Seconds for a reply: a disk that is busy with other things may take long."""

_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_BAD = re.compile(r"Non-2xx or 3xx responses: \d+|Socket errors: .+")


@dataclass(frozen=True)
class Load:
    """POSTs of CloudEvents in binary mode. wrk sends one fixed request the fastest; `many` bodies, each with an id of
    its own, cost it a little, so they are for servers that remember ids.
    """

    path: str
    type: str
    bodies: tuple[bytes, ...]
    reconnect: bool = False
    """A connection per request."""

    def at(self, path: str) -> Load:
        return replace(self, path=path)

    def headers(self, number: int = 0) -> dict[str, str]:
        found = {
            "content-type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": f"4111928-1/20260105/{number}",
            "ce-source": "/vehicles/4111928-1",
            "ce-type": self.type,
            "ce-time": "2026-01-05T04:43:02Z",
        }
        return {**found, "connection": "close"} if self.reconnect else found

    def script(self, run: int) -> str:
        """Lua for wrk. `run`: ids differ from run to run."""
        headers = "".join(
            f"wrk.headers[{json.dumps(name)}] = {json.dumps(at)}\n" for name, at in self.headers().items()
        )
        first = f'wrk.method = "POST"\n{headers}'
        if len(self.bodies) == 1:
            return f"{first}wrk.body = {_lua(self.bodies[0])}\n"
        bodies = ",\n".join(_lua(body) for body in self.bodies)
        return f"""{first}
local bodies = {{{bodies}}}
local count = 0
request = function()
  count = count + 1
  wrk.headers["ce-id"] = "{run}/" .. count
  return wrk.format(nil, nil, nil, bodies[count % #bodies + 1])
end
"""


def measure(load: Load, port: int, folder: Path, *, run: int, quick: bool = False, host: str = "127.0.0.1") -> float:
    """Requests a second. `run`: another one each time. Raises RuntimeError where a reply was no 2xx."""
    script = folder / "load.lua"
    for turn, length in enumerate((1,) if quick else (WARM, SECONDS)):
        script.write_text(load.script(2 * run + turn))
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{length}s", f"--timeout={PATIENCE}s", "-s", script]
        text = subprocess.run(
            pinned([*command, f"http://{host}:{port}{load.path}"], "load"),
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        if bad := _BAD.search(text):
            raise RuntimeError(f"under load on {load.path}: {bad[0]}")
    found = _RATE.search(text)
    if found is None:
        raise RuntimeError(f"wrk says no rate: {text}")
    return float(found[1])


def need_wrk() -> None:
    """Raises SystemExit where it is missing and cannot be installed."""
    if subprocess.run([Path(__file__).with_name("wrk.sh")], check=False).returncode:
        raise SystemExit(1)


def _lua(body: bytes) -> str:
    return json.dumps(body.decode())
