"""A Kubernetes API server as far as gateways ask one: list, watch, get, apply, delete of what is put here, over HTTP.

Versions count up; watches from before `forgotten` are answered 410, and so do open ones end when `forget` is called.
"""

import asyncio
import base64
import json
import socket
import time
from urllib.parse import parse_qs, unquote, urlsplit

from fleetfn_gateway.cluster.kube_access import Access


class FakeApi:
    """From `async with` on. `denied`: (verb, plural) that are refused; `shown`: the token that callers have to show."""

    def __init__(self, namespace="alerts"):
        self.namespace = namespace
        self.objects = {}
        """By (plural, name)."""
        self.denied = set()
        self.shown = None
        self.asked = []
        """(verb, plural, name) of each request."""
        self.applied = []
        """(time, name, body) of each apply."""
        self.forgotten = 0
        self.version = 100
        self.port = 0
        self._events = []
        self._news = asyncio.Event()
        self._server = None
        self._kept = socket.socket()
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._tasks = set()

    @property
    def access(self):
        return Access(f"http://127.0.0.1:{self.port}", None, lambda: self.shown, "user 'test'")

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self.stop()
        self._kept.close()

    async def start(self):
        """At the port that it had, which nobody else is given while it is away."""
        if not self.port:
            self._kept.bind(("127.0.0.1", 0))
            self.port = self._kept.getsockname()[1]
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)

    async def stop(self):
        """As one whose machine is gone: what is open ends."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def put(self, plural, name, *, labels=None, annotations=None, **body):
        self.version += 1
        known = self.objects.get((plural, name))
        meta = {
            "name": name,
            "uid": known["metadata"]["uid"] if known else f"uid-{self.version}",
            "resourceVersion": str(self.version),
            "labels": labels or {},
            "annotations": annotations or {},
        }
        meta.update(body.pop("metadata", {}))
        self.objects[plural, name] = {"metadata": meta, **body}
        self._tell("MODIFIED" if known else "ADDED", plural, self.objects[plural, name])

    def head(self, name, head, **meta):
        self.put("configmaps", name, labels={"fleetfn.dev/part": "head"}, data={"head.json": head}, **meta)

    def secret(self, name, **values):
        self.put("secrets", name, data={key: base64.b64encode(value).decode() for key, value in values.items()})

    def pod(self, name, function, *, ip="", ready=False, **meta):
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
        if ip:
            status["podIP"] = ip
        labels = {"fleetfn.dev/function": function, "fleetfn.dev/part": "worker", "fleetfn.dev/revision": "abc"}
        self.put("pods", name, labels=labels, status=status, **meta)

    def remove(self, plural, name):
        self.version += 1
        gone = self.objects.pop((plural, name))
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", plural, gone)

    def forget(self):
        """What changed up to now, as etcd's compaction does; open watches are told so."""
        self.forgotten = self.version
        self._tell("ERROR", None, {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})

    def bookmark(self):
        self._tell("BOOKMARK", None, {"metadata": {"resourceVersion": str(self.version)}})

    def _tell(self, kind, plural, body):
        self._events.append((self.version, kind, plural, json.loads(json.dumps(body))))
        news, self._news = self._news, asyncio.Event()
        news.set()

    # HTTP

    async def _accepted(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._serve(writer, first.split(" ")[0], first.split(" ")[1], headers, body)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the server's own task: it ends here
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, writer, method, target, headers, body):
        url = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        namespace, _, rest = url.path.partition("/namespaces/")[2].partition("/")
        plural, _, name = unquote(rest).partition("/")
        assert namespace == self.namespace
        verb = {"GET": "get" if name else "watch" if "watch" in query else "list", "PATCH": "patch"}.get(
            method, method.lower()
        )
        self.asked.append((verb, plural, name))
        if self.shown is not None and headers.get("authorization") != f"Bearer {self.shown}":
            self._refuse(writer, 401, "Unauthorized")
        elif (verb, plural) in self.denied:
            self._refuse(writer, 403, "forbidden")
        elif verb == "watch":
            await self._watch(writer, plural, query)
        elif verb == "list":
            found = [each for (kind, _), each in self.objects.items() if kind == plural and _selected(each, query)]
            self._answer(writer, 200, {"metadata": {"resourceVersion": str(self.version)}, "items": found})
        elif verb == "patch":
            assert headers["content-type"] == "application/apply-patch+yaml"
            self.applied.append((time.monotonic(), name, json.loads(body)))
            self._answer(writer, 200, json.loads(body))
        elif (plural, name) not in self.objects:
            self._refuse(writer, 404, f'{plural} "{name}" not found')
        else:
            if verb == "delete":
                self.remove(plural, name)
                self._answer(writer, 200, {})
                return
            self._answer(writer, 200, self.objects[plural, name])

    async def _watch(self, writer, plural, query):
        version = int(query["resourceVersion"])
        if version < self.forgotten:
            self._refuse(writer, 410, "too old resource version")
            return
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        at = next((i for i, each in enumerate(self._events) if each[0] > version), len(self._events))
        while True:
            news = self._news
            for _, kind, of, body in self._events[at:]:
                if of is None or (of == plural and _selected(body, query)):
                    line = json.dumps({"type": kind, "object": body}).encode() + b"\n"
                    writer.write(b"%x\r\n%b\r\n" % (len(line), line))
                if kind == "ERROR":
                    writer.write(b"0\r\n\r\n")
                    return
            at = len(self._events)
            await news.wait()

    def _refuse(self, writer, status, message):
        self._answer(writer, status, {"kind": "Status", "message": message, "code": status})

    def _answer(self, writer, status, body):
        text = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
        writer.write(head.encode() + text)


def _selected(body, query):
    labels = body["metadata"].get("labels", {})
    wanted = [each.partition("=") for each in query.get("labelSelector", "").split(",") if each]
    return all(labels.get(name) == value for name, _, value in wanted)
