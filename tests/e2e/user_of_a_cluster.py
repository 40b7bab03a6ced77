"""Somebody who has functions in a namespace: `fn` with environments, and a pod that asks functions over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fn_command import Fn, write_environments
from kubectl_command import Kubectl

CLIENT = "client"

_ASK = """
import http.client, json, time, urllib.parse

def connected(parts):
    limit = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=60)
        try:
            connection.connect()
            return connection
        except ConnectionRefusedError:  # a pod has ended to which the way still leads
            if time.monotonic() > limit: raise
            time.sleep(0.1)

replies = []
for method, url, body in json.loads({asked!r}):
    parts = urllib.parse.urlsplit(url)
    connection = connected(parts)
    connection.request(method, parts.path, body)
    answer = connection.getresponse()
    replies.append([answer.status, answer.read().decode()])
    connection.close()
print(json.dumps(replies))
"""

_LOAD = """
import http.client, json, os, threading, time

def ask(number, keeps, sent, wrong):
    connection, count = None, 0
    while not os.path.exists("/tmp/enough"):
        unrun = False  # by a pod that ends, to which the way still leads: the number comes again
        try:
            connection = connection or http.client.HTTPConnection({host!r}, timeout=60)
            connection.request("POST", f"{path}/{{number}}", json.dumps({{"vehicle": str(number), "number": count}}))
            answer = connection.getresponse()
            said = answer.read().decode()
            unrun = answer.status == 503 and "the function is draining" in said
            if answer.status != 200 and not unrun:
                wrong.append(f"{{answer.status}} {{said}}")
        except ConnectionRefusedError:
            unrun = True
        except OSError as error:
            wrong.append(repr(error))
            connection = None
        except http.client.HTTPException as error:
            wrong.append(repr(error))
            connection = None
        count += not unrun
        if (unrun or not keeps) and connection is not None:
            connection.close()
            connection = None
        time.sleep(0.02)
    sent[number] = count

sent, wrong = {{}}, []
threads = [threading.Thread(target=ask, args=(each, each % 2, sent, wrong)) for each in range({callers})]
for each in threads: each.start()
for each in threads: each.join()
print(json.dumps([sent, wrong]))
"""


def waited(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
    return found


class User:
    """In the namespace of `kubectl`. `environment`: the one that `fn` is told of where a command names no other."""

    def __init__(self, folder: Path, kubectl: Kubectl, kubeconfig: Path, environment: dict[str, Any]) -> None:
        self._environment = environment
        self._others: list[dict[str, Any]] = []
        environ = {"KUBECONFIG": str(kubeconfig), "FN_ENV": environment["name"]}
        if wheel := os.environ.get("FN_E2E_WHEEL"):
            environ |= {f"FN_{command}_FLEETFN": wheel for command in ("DEPLOY", "DIFF", "EXPORT")}
        self.fn = Fn(folder, environ)
        self.folder = folder
        self.kubectl = kubectl
        write_environments(folder, environment)

    def add_environment(self, name: str, **target: Any) -> None:
        """Another one, whose target differs so."""
        place = self._environment["target"]["kubernetes"] | target
        self._others.append(self._environment | {"name": name, "target": {"kubernetes": place}})
        write_environments(self.folder, self._environment, *self._others)

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Of workers, ending ones included."""
        which = f"--selector=fleetfn.dev/function={name},fleetfn.dev/part=worker"
        found: list[dict[str, Any]] = self.kubectl.read("pods", which)["items"]
        return found

    def await_sleep(self, *names: str, seconds: float = 180) -> None:
        for name in names:
            waited(lambda name=name: not self.pods(name), seconds, f"no pod of {name}")

    def await_waking(self, name: str, seconds: float = 120) -> None:
        waited(lambda: self.pods(name), seconds, f"a pod of {name}")

    # HTTP

    def start_client(self, image: str) -> None:
        command = ["python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])"]
        container = {"name": CLIENT, "image": image, "command": command}
        spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": CLIENT}, "spec": spec})
        self.kubectl.await_pod(CLIENT)

    def url(self, name: str, path: str) -> str:
        return f"http://{name}.{self.kubectl.namespace}.svc{path}"

    def ask(self, *requests: tuple[str, str] | tuple[str, str, Any]) -> list[tuple[int, str]]:
        """(method, url[, JSON]) each: statuses and bodies, from a pod."""
        asked = [(method, url, json.dumps(body[0]) if body else None) for method, url, *body in requests]
        return [tuple(each) for each in json.loads(self.kubectl.run(CLIENT, _ASK.format(asked=json.dumps(asked))))]

    def ask_on(self, name: str, path: str, callers: int) -> subprocess.Popen[str]:
        """Callers 0, 1, ... in a pod, each of which posts {"vehicle": "0", "number": n} to `path`/0 and so on, n = 0,
        1, ..., every second one over one connection, until `asked_enough`.
        """
        host = f"{name}.{self.kubectl.namespace}.svc"
        return self.kubectl.start(CLIENT, _LOAD.format(host=host, path=path, callers=callers))

    def asked_enough(self, asking: subprocess.Popen[str]) -> tuple[dict[str, int], list[str]]:
        """How many requests each caller sent; and what was answered other than 200, or not at all. What surely nobody
        ran, by a pod that ended, was sent again and counts once.
        """
        self.kubectl.exec(CLIENT, "touch", "/tmp/enough", container=CLIENT)
        text, _ = asking.communicate(timeout=180)
        sent, wrong = json.loads(text)
        return sent, wrong
