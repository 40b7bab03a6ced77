"""A Docker engine that has containers by their labels, and nothing else: spoken to as a real one, over its socket."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from urllib.parse import parse_qs, urlsplit

from threaded_server import CallersMayLeave


class ListedEngine(CallersMayLeave, ThreadingMixIn, UnixStreamServer):
    """`containers`: labels by id; of those in `going` it says that they are being removed already."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Answers)
        self.address = f"unix://{path}"
        self.containers: dict[str, dict[str, str]] = {}
        self.going: set[str] = set()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = urlsplit(self.path)
        if asked.path.endswith("/version"):
            self._answer(200, {"ApiVersion": "1.41", "Version": "20.10"})
        elif asked.path.endswith("/containers/json"):
            query = {name: values[0] for name, values in parse_qs(asked.query).items()}
            wanted = set(json.loads(query.get("filters", "{}")).get("label", []))
            found = [
                {"Id": each}
                for each, labels in self.server.containers.items()
                if wanted <= {f"{name}={value}" for name, value in labels.items()} and query.get("all") == "1"
            ]
            self._answer(200, found)
        else:
            self._answer(404, {"message": "no such thing"})

    def do_DELETE(self):
        asked = urlsplit(self.path)
        container = asked.path.rpartition("/")[2]
        if container in self.server.going:
            self._answer(409, {"message": f"removal of container {container} is already in progress"})
        elif "force=1" in asked.query.lower().replace("true", "1"):
            del self.server.containers[container]
            self._answer(204, None)
        else:
            self._answer(409, {"message": "it runs: stop it first"})

    def log_message(self, *_):
        """Silent."""

    def _answer(self, status, content):
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
