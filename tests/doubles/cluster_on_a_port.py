"""MemoryCluster as an API server that is reached by a kubeconfig: for `fn`, which finds its own way there."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import yaml
from memory_cluster import RefusedError


@contextlib.contextmanager
def served(server, kubeconfig):
    """Writes the kubeconfig; the server is away once this ends."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self):
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            url = f"http://cluster{self.path}"
            request = httpx.Request(self.command, url, content=content, headers=dict(self.headers))
            with lock:
                try:
                    status, body = server._answer(request)
                except RefusedError as refused:
                    status, body = refused.status, refused.body
            found = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(found)))
            self.end_headers()
            self.wfile.write(found)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815 - as http.server calls them

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    _write(kubeconfig, f"http://127.0.0.1:{listening.server_port}")
    try:
        yield
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def _write(path, url):
    described = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "ann", "user": {"token": "t"}}],
        "contexts": [{"name": "fleet-prod", "context": {"cluster": "test", "user": "ann"}}],
        "current-context": "fleet-prod",
    }
    path.write_text(yaml.safe_dump(described))
