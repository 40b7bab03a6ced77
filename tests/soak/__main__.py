"""Run the soak.

    cd tests && python -m soak [--seeds 1 2 3] [--size short|medium|long]
    cd tests && cluster/in.sh python -m soak --place cluster [--seeds 1] [--size short|full]

Each seed has a node or a namespace, a Kafka and a Mosquitto of its own, in a folder that is kept where something was
found wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from soak import run
from soak.place import Place
from soak.plan import CLUSTER_SIZES, SIZES


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--place", choices=("node", "cluster"), default="node")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="one run each")
    parser.add_argument("--size", choices=(*SIZES, "full"), help="default: long, of a cluster full")
    parser.add_argument("--port", type=int, default=19300, help="the first of ten that the run takes")
    parser.add_argument("--settle", type=float, default=150, help="seconds until all must be quiet after the load")
    parser.add_argument("--base", help="of a cluster: image to build on; default: one that is made and pushed")
    parser.add_argument("--mutate", choices=sorted(each.name for each in run.MUTANTS.iterdir() if each.is_dir()))
    parser.add_argument("--keep", action="store_true", help="keep the folders of runs that passed")
    given = parser.parse_args()
    sizes = SIZES if given.place == "node" else CLUSTER_SIZES
    size = given.size or list(sizes)[-1]
    if size not in sizes:
        parser.error(f"a {given.place} has no size {size}; it has {', '.join(sizes)}")
    options = run.Options(size, given.port, given.settle, given.mutate, given.keep)
    place = _node if given.place == "node" else _cluster(given.base)
    failed = []
    for seed in given.seeds:
        began = time.monotonic()
        passed = run.run(seed, options, place)
        run.say(f"seed {seed} {'passed' if passed else 'FAILED'} after {time.monotonic() - began:.0f} s")
        failed += [] if passed else [seed]
    return 1 if failed else 0


def _node(_: int, folder: Path, options: run.Options) -> Place:
    from soak.node_place import NodePlace  # noqa: PLC0415 - of this place alone

    return NodePlace(folder, options.port + 9, options.mutant_folder)


def _cluster(base: str | None) -> run.Places:
    from soak import cluster_base  # noqa: PLC0415 - likewise
    from soak.cluster_place import ClusterPlace  # noqa: PLC0415 - likewise

    image = base or cluster_base.pushed()
    return lambda seed, folder, options: ClusterPlace(seed, folder, options.port + 9, options.mutant_folder, image)


if __name__ == "__main__":
    sys.exit(main())
