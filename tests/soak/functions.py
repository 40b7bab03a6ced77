"""The functions of a run, as folders to deploy: their YAML, and the handlers' file with its revision."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HANDLER = Path(__file__).parent / "function" / "handler.py"

ATTEMPTS = 6
RISKY_ATTEMPTS = 3

CHAINS = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: chains}}
spec:
  handler: handler:take
  triggers:
  - {{name: k, key: kafka.key, event: {{time: data.ts}}, kafka: {{topic: in, start: earliest}}}}
  - {{name: x, key: kafka.key, kafka: {{topic: risky, start: earliest}}, retry: {{attempts: {risky}, initial: 100ms}}}}
  - {{name: m, key: topic.vehicle, handler: "handler:take_async", mqtt: {{topic: "soak/{{vehicle}}/in", qos: 1}}}}
  - {{name: h, key: path.vehicle, http: {{path: "/soak/{{vehicle}}"}}}}
  outputs:
  - {{name: out, kafka: {{topic: out}}}}
  - {{name: out-mqtt, mqtt: {{topic: "soak/{{key}}/out", qos: 1}}}}
  - {{name: out-http, http: {{url: "http://{receiver}/out"}}}}
  returns: out
  retry: {{attempts: {attempts}, initial: 100ms, factor: 1.5, max: 1s}}
  scale: {{min: {least}, max: {most}, idle: 5s, concurrency: {concurrency}}}
"""

RELAY = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: relay}}
spec:
  handler: handler:relay
  triggers:
  - {{name: r, key: kafka.key, batch: {{size: 20}}, kafka: {{topic: raw, start: earliest}}}}
  outputs:
  - {{name: relayed, kafka: {{topic: relayed}}}}
  returns: relayed
  scale: {{max: {others}, idle: 2s}}
"""

AUDIT = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: audit}}
spec:
  handler: handler:audit
  triggers:
  - {{name: o, key: kafka.key, batch: {{size: 20, wait: 50ms, by: key}}, kafka: {{topic: out, start: earliest}}}}
  scale: {{max: {others}, idle: 5s}}
"""

TRIGGERS = {("chains", "k"): "in", ("chains", "x"): "risky", ("relay", "r"): "raw", ("audit", "o"): "out"}
"""Kafka triggers and their topics."""


@dataclass(frozen=True)
class Setting:
    """What functions are told of the place they run at."""

    environment: dict[str, Any]
    """Name, target, state; connections are added."""
    least: int
    """Workers of `chains` at least, in any revision."""
    others: int = 1
    """Workers of each other function at most."""
    concurrency: int = 64
    """Of `chains`."""
    beside: tuple[Path, ...] = ()
    """Folders that are put into each function's."""


@dataclass
class Functions:
    """`write` again after a change, and deploy."""

    folder: Path
    kafka: str
    mqtt: str
    receiver: str
    """host:port of the other end of the http output."""
    setting: Setting
    revision: int = 1
    least: int = field(init=False)
    most: int = 2

    names = ("chains", "relay", "audit")

    def __post_init__(self) -> None:
        self.least = self.setting.least

    def write(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "environments.yaml").write_text(json.dumps(self._environments()))
        chains = CHAINS.format(
            receiver=self.receiver,
            attempts=ATTEMPTS,
            risky=RISKY_ATTEMPTS,
            least=self.least,
            most=self.most,
            concurrency=self.setting.concurrency,
        )
        relay, audit = (each.format(others=self.setting.others) for each in (RELAY, AUDIT))
        for name, spec in zip(self.names, (chains, relay, audit), strict=True):
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            (folder / "function.yaml").write_text(spec)
            code = HANDLER.read_text().replace("REVISION = 1", f"REVISION = {self.revision}")
            (folder / "handler.py").write_text(code)
            for each in self.setting.beside:
                shutil.copytree(each, folder / each.name, dirs_exist_ok=True)

    def _environments(self) -> dict[str, Any]:
        """JSON is YAML."""
        kafka = {"name": "kafka", "kafka": {"brokers": [self.kafka]}}
        mqtt = {"name": "mqtt", "mqtt": {"url": f"mqtt://{self.mqtt}"}}
        environment = {**self.setting.environment, "connections": [kafka, mqtt]}
        return {"apiVersion": "fleetfn.dev/v1alpha1", "kind": "Environments", "environments": [environment]}
