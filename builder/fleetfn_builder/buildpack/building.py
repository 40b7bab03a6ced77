"""bin/build: a function's layers, in a builder image.

    dependencies   what requirements.txt asks for and FleetFn needs; kept until one of these, Python or uv changes
    runtime        FleetFn; kept until its wheel changes

Whoever runs the build hands over a plan, `fleetfn/plan.json` below the platform's folder. Without one (`pack build`)
all that FleetFn can do is installed, and FleetFn itself says what the function is called.
https://github.com/buildpacks/spec/blob/main/buildpack.md
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleetfn_builder.assembly import anatomy, bytecode, resolving, runtime, sbom
from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.install import Wanted, install
from fleetfn_builder.assembly.target import Target, of_this_machine

PLAN = "fleetfn/plan.json"
"""Below the platform's folder."""

PROCESS = "worker"
_OWN_LAYERS = "/layers/"

_BETWEEN = re.compile(r"[\s=;@\[\]]+|file:(?://)?|^-[ercf](?=\S)")
"""What stands between paths and all else in a line of requirements.txt."""


@dataclass(frozen=True)
class Base:
    """The run image. `python`: `3.11`; `interpreter`: its path there; both empty where it has none."""

    name: str
    digest: str
    python: str
    interpreter: str


@dataclass(frozen=True)
class Plan:
    """What the image is of. `needs` and `constraints`: lines as in requirements.txt."""

    function: str
    wheel: str
    """Its file's name."""
    needs: Sequence[str]
    constraints: Sequence[str] = field(default_factory=list)
    base: Base | None = None
    packages: Sequence[Mapping[str, str]] = field(default_factory=list)
    """Of the base, for the bill of materials: kind, name, version, architecture."""
    variables: str = ""
    """Digest over those that the build was given."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Where the run image does not have them already."""


@dataclass(frozen=True)
class Place:
    """Where the lifecycle has put things."""

    app: Path
    layers: Path
    buildpack: Path
    platform: Path

    def wheel(self, plan: Plan | None) -> Path:
        """FleetFn's. Where a plan came along, so did a wheel, and the builder image may have another."""
        found = sorted((self.buildpack / "wheels").glob(plan.wheel if plan is not None else "fleetfn-*.whl"))
        if len(found) != 1:
            raise AssemblyError(
                f"the buildpack holds {len(found)} wheels of FleetFn", hint="make the builder image anew"
            )
        return found[0]


def main() -> int:
    """Exit code; what went wrong stands on standard error, as `Error:` and `Hint:`."""
    place = Place(
        app=Path.cwd(),
        layers=Path(os.environ["CNB_LAYERS_DIR"]),
        buildpack=Path(os.environ["CNB_BUILDPACK_DIR"]),
        platform=Path(os.environ["CNB_PLATFORM_DIR"]),
    )
    try:
        build(place)
    except AssemblyError as error:
        _complain(error.message, error.hint)
        return 1
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _complain(message: str, hint: str = "") -> None:
    sys.stderr.write(f"Error: {message}\n" + (f"Hint: {hint}\n" if hint else ""))


def build(place: Place) -> None:
    """Raises AssemblyError, OSError."""
    target = of_this_machine()
    given = read_plan(place.platform / PLAN)
    if given is not None:
        _check_base(target, given)
    wheel = place.wheel(given)
    needs = given.needs if given is not None else runtime.needs(wheel)
    constraints = given.constraints if given is not None else ()
    dependencies = _dependencies(place, target, needs, constraints, given.variables if given is not None else "")
    unpacked = _runtime(place, target, wheel)
    plan = given or _asked(place, wheel, dependencies, unpacked)
    base = sbom.Base(plan.base.name, plan.base.digest) if plan.base is not None else None
    (place.layers / "launch.sbom.cdx.json").write_bytes(
        sbom.bill(
            plan.function,
            installed=[dependencies / target.site_packages, unpacked],
            base=base,
            packages=[sbom.package(**each) for each in plan.packages],
        )
    )
    (place.layers / "launch.toml").write_text(launch(plan.labels), "utf-8")


def read_plan(path: Path) -> Plan | None:
    """None: there is no such file. Raises AssemblyError."""
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text("utf-8"))
        base = fields.pop("base", None)
        return Plan(**fields, base=Base(**base) if base else None)
    except (ValueError, TypeError) as error:
        raise AssemblyError(
            f"the plan {path} cannot be read: {error}", hint="use FleetFn and buildpack of one version"
        ) from error


def launch(labels: Mapping[str, str]) -> str:
    """As launch.toml."""
    lines = [
        "[[processes]]",
        f"type = {_quoted(PROCESS)}",
        f"command = {_quoted(anatomy.COMMAND)}",  # as args they would go when a container is given some
        "default = true",
        f"working-dir = {_quoted(anatomy.CODE)}",
    ]
    for key in sorted(labels):
        lines += ["[[labels]]", f"key = {_quoted(key)}", f"value = {_quoted(labels[key])}"]
    return "\n".join(lines) + "\n"


def _check_base(target: Target, plan: Plan) -> None:
    """A Python that a buildpack brings goes along into the image; any other must be in the run image."""
    base = plan.base
    if base is None or target.interpreter.startswith(_OWN_LAYERS):
        return
    if (base.python, base.interpreter) != (target.python, target.interpreter):
        other = f"{base.python} at {base.interpreter}" if base.python else "none"
        raise AssemblyError(
            f"the builder image has Python {target.python} at {target.interpreter}, and the run image {base.name} has "
            f"{other}",
            hint="Make a builder image of the same base: fn builder create --base.",
        )


def _dependencies(
    place: Place, target: Target, needs: Sequence[str], constraints: Sequence[str], variables: str
) -> Path:
    requirements = place.app / "requirements.txt"
    uv = place.buildpack / "bin" / "uv"
    has = requirements.is_file()
    told = [variables, resolving.settings(place.app, os.environ)]
    key = _key(repr(target), needs, constraints, _lines(requirements) if has else [], told, _digest(uv))
    layer = place.layers / "dependencies"
    if _is_kept(layer, key):
        _say("dependencies: as they were")
    else:
        shutil.rmtree(layer, ignore_errors=True)
        wanted = Wanted(needs, requirements if has else None, constraints)
        install(layer, target, wanted, uv=uv, progress=_say)
        bytecode.compile_tree(layer / "lib", f"{anatomy.DEPENDENCIES}/lib", Path(sys.executable))
    _keep(layer, key)
    return layer


def _runtime(place: Place, target: Target, wheel: Path) -> Path:
    key = _key(target.python, _digest(wheel))
    layer = place.layers / "runtime"
    if _is_kept(layer, key):
        _say("FleetFn: as it was")
    else:
        _say(f"unpacking FleetFn {runtime.version(wheel)}")
        shutil.rmtree(layer, ignore_errors=True)
        runtime.unpack(wheel, layer)
        bytecode.compile_tree(layer, anatomy.RUNTIME, Path(sys.executable))
        variables = layer / "env.launch"
        variables.mkdir()
        for name, value in anatomy.ENVIRONMENT.items():
            (variables / f"{name}.override").write_text(value, "utf-8")
    _keep(layer, key)
    return layer


def _is_kept(layer: Path, key: str) -> bool:
    """Was it made for the same, and has the lifecycle brought it back?"""
    described = layer.with_name(f"{layer.name}.toml")
    return layer.is_dir() and described.is_file() and f"key = {_quoted(key)}\n" in described.read_text("utf-8")


def _keep(layer: Path, key: str) -> None:
    types = "[types]\nlaunch = true\ncache = true\n"
    layer.with_name(f"{layer.name}.toml").write_text(f"{types}[metadata]\nkey = {_quoted(key)}\n", "utf-8")


def _lines(requirements: Path, around: tuple[Path, ...] = ()) -> list[str]:
    """And all that they name, files, folders beside them and what is named in files in turn, whatever these are: one
    more is built anew at worst.
    """
    found = lines = [re.sub(r"(^|\s)#.*", "", each) for each in requirements.read_text("utf-8", "replace").splitlines()]
    words = [word for line in lines for word in _BETWEEN.split(line) if word]
    for path in (requirements.parent / word for word in words):
        if path.is_file():
            found = [*found, _digest(path)]
            if path.suffix in {".txt", ".in"} and path.resolve() not in around:
                found += _lines(path, (*around, requirements.resolve()))
        elif path.is_dir() and path.resolve().is_relative_to(requirements.parent.resolve()):
            found = [*found, *(f"{each} {_digest(each)}" for each in sorted(path.rglob("*")) if each.is_file())]
    return found


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _quoted(value: object) -> str:
    """TOML writes strings and lists of them as JSON does."""
    return json.dumps(value, ensure_ascii=False)


_ASK = """
import json, pathlib, msgspec
from fleetfn_plumbing import source
from fleetfn_spec.load import load_function
folder = pathlib.Path.cwd()
function = load_function(folder)
files = source.files(folder)
spec = msgspec.json.encode(function, order="deterministic")
print(json.dumps([function.name, source.digest(folder, files, spec), source.digest(folder, files)]))
"""


def _asked(place: Place, wheel: Path, dependencies: Path, unpacked: Path) -> Plan:
    """What a plan would say, by FleetFn itself. Raises AssemblyError where the function is no good."""
    done = subprocess.run(  # noqa: S603 - the Python of the layer
        [str(dependencies / "bin" / "python"), "-P", "-B", "-c", _ASK],
        cwd=place.app,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        raise AssemblyError(f"function.yaml: {said[-1]}", hint="`fn check` lists all that is wrong")
    name, revision, files = json.loads(done.stdout)
    labels = {
        anatomy.LABEL_FUNCTION: name,
        anatomy.LABEL_REVISION: revision,
        anatomy.LABEL_SOURCE: files,
        anatomy.LABEL_VERSION: runtime.version(wheel),
        anatomy.LABEL_BUILDER: "buildpacks",
    }
    return Plan(function=name, labels=labels, wheel=wheel.name, needs=())
