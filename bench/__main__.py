"""What FleetFn costs, beside what one would use instead: a table, and bench/results/latest.json.

    python bench [--only http,kafka] [--runs 5] [--quick] [--no-peers] [--to FILE] [--list]

Each benchmark is a module of this folder with `lines(setting)`. All run on this machine's loopback, with brokers and
servers of their own that end with the run. Compare figures within one line only: they differ from machine to machine,
and from hour to hour; ratios are what lasts.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

import results
from setting import Setting
from turns import say

BENCHES = {
    "http": "typed HTTP events: the worker alone, through the front door, and servers one would use instead",
    "kafka": "Kafka events, without and with state: lanes against a bare consume loop, Quix Streams and Faust",
    "mqtt": "MQTT QoS 1: into the inbox and through to the handler, against a bare subscriber",
    "cold": "from a sleeping function to its first reply, per trigger, against a bare fork",
    "age": "how old events are when handled, at a steady 2,000 a second, per trigger",
    "idle": "memory and CPU of a node with nothing to do, and how they grow with functions and keys",
    "inbox": "the durable queue by itself",
    "build": "images by both builders, against docker build; as root, and when asked for alone",
    "cluster": "from zero on a cluster, per trigger, against a bare pod; in tests/cluster, and when asked for alone",
}
WHEN_ASKED = {"build", "cluster"}
"""Not part of a run that names none: the one starts Docker engines, the other needs a cluster."""


def main() -> None:
    options = _options()
    if options.list:
        for name, what in BENCHES.items():
            print(f"{name:8}{what}")
        return
    setting = Setting(runs=options.runs, quick=options.quick, with_peers=options.peers)
    lines: list[results.Line] = []
    start = time.monotonic()
    with setting:
        for name in options.only:
            for line in importlib.import_module(f"{name}_lines").lines(setting):
                lines.append(line)
                results.keep(lines, options.to)
    say("")
    results.show(lines)
    print(f"{time.monotonic() - start:.0f} s; kept in {options.to}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python bench", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[name for name in BENCHES if name not in WHEN_ASKED],
        help="some, by their names",
    )
    parser.add_argument("--runs", type=int, default=5, help="turns of each line (default 5)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the load, to see that all runs")
    parser.add_argument(
        "--no-peers",
        dest="peers",
        action="store_false",
        help="FleetFn and the bare library beside it only: nothing else is installed",
    )
    parser.add_argument(
        "--to", type=Path, default=results.LATEST, help="the file that keeps them: bench/results/latest.json"
    )
    parser.add_argument("--list", action="store_true", help="what there is")
    options = parser.parse_args()
    unknown = [name for name in options.only if name not in BENCHES]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; known: {', '.join(BENCHES)}")
    if options.runs < 1:
        parser.error("--runs is 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
