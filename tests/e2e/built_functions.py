"""A function and its gateway, built here, for deploys to a namespace of a real cluster."""

import functools
import os
import platform
import tempfile
from pathlib import Path

from cluster_functions import environment
from fleetfn_builder.builder import Platform
from fleetfn_builder.wheel import of_this_fleetfn
from fleetfn_cli.cluster_images import BuiltImages
from fleetfn_deploy.target import Source
from fleetfn_spec.load import load_function

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""


@functools.cache
def images():
    """With one FleetFn for all of them, whatever is edited meanwhile."""
    named = os.environ.get("FN_E2E_WHEEL")
    wheel = Path(named) if named else of_this_fleetfn(Path(tempfile.mkdtemp(prefix="fn-e2e-")))
    return BuiltImages((Platform(ARCHITECTURES[platform.machine()]),), wheel=wheel)


def place(kubectl, registry_address, python_image, more=None, **others):
    """Its target is the namespace of `kubectl`. `more`: of the target; `others`: state, connections."""
    registry = f"{registry_address}/{kubectl.namespace}"
    target = {"namespace": kubectl.namespace, "registry": registry, "insecure": True, "base": python_image}
    return environment(target | (more or {}), **others)


def source(folder, code, function=FUNCTION):
    (folder / "function.yaml").write_text(function)
    (folder / "handler.py").write_text(code + "\ndef hello(name: str) -> str:\n    return name\n")
    return Source(folder, load_function(folder))
