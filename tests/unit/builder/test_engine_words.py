"""What is said where no engine is to be had."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing

import pytest
from fleetfn_builder import engine
from fleetfn_builder.builder import BuildError
from listed_engine import ListedEngine


def test_names_the_address_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(BuildError, match=r"no Docker engine answers at unix://.*none\.sock: No such file") as caught:
        engine.connect()
    assert "--builder direct" in caught.value.hint


def test_says_that_the_user_may_not(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(engine.socket.socket, "connect", refuse)
    monkeypatch.setenv("DOCKER_HOST", "unix:///var/run/docker.sock")
    with pytest.raises(BuildError, match="this user may not speak to the Docker engine") as caught:
        engine.connect()
    assert "group `docker`" in caught.value.hint


def test_honours_the_context_of_docker(tmp_path, monkeypatch):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    with pytest.raises(BuildError, match=r"no context 'nowhere'|context cannot be read"):
        engine.connect()


def test_refuses_an_engine_that_is_too_old(tmp_path, monkeypatch):
    path = str(tmp_path / "old.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(2)
    listener.settimeout(60)

    def answer():
        listener.accept()[0].close()  # it is tried first
        connection, _ = listener.accept()
        connection.recv(65536)
        body = json.dumps({"ApiVersion": "1.40", "Version": "19.03"}).encode()
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        connection.close()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with pytest.raises(BuildError, match=r"its API is 1\.40, 1\.41 is needed"):
        engine.connect()
    thread.join(60)
    listener.close()


def test_removes_the_containers_that_have_all_labels_and_none_else(tmp_path, monkeypatch):
    with ListedEngine(tmp_path / "engine.sock") as listed:
        listed.containers = {
            "left": {"build": "alert", "cache": "1", "more": "2"},
            "going": {"build": "alert", "cache": "1"},
            "of-another-cache": {"build": "alert", "cache": "2"},
            "of-another-function": {"build": "other", "cache": "1"},
        }
        listed.going = {"going"}
        monkeypatch.setenv("DOCKER_HOST", listed.address)
        with closing(engine.connect()) as connected:
            connected.remove_containers({"build": "alert", "cache": "1"})
        assert sorted(listed.containers) == ["going", "of-another-cache", "of-another-function"]


def test_puts_lines_together_however_they_are_cut():
    assert list(engine._lines([b"on", b"e\r\ntwo\nth", b"ree"])) == ["one", "two", "three"]


class Logged:
    """A container. `followed`: what who follows its log gets; `whole`: its log once it has ended."""

    def __init__(self, followed, whole):
        self.followed, self.whole = followed, whole
        self.did = []

    def start(self):
        self.did.append("start")

    def logs(self, *, stream, follow):
        assert stream
        self.did.append("follow" if follow else "read")
        return iter(self.followed if follow else self.whole)

    def wait(self):
        self.did.append("wait")
        return {"StatusCode": 3}

    def kill(self):
        self.did.append("kill")


@pytest.mark.parametrize(
    "followed",
    [[], [b"one\n"], [b"one\ntw"], [b"on", b"e\ntwo\nthree\n"]],
    ids=["nothing", "a line", "half a line", "everything"],
)
@pytest.mark.parametrize("whole", [[b"one\ntwo\nthree\n"], [b"o", b"ne\nt", b"wo\nth", b"ree\n"]])
def test_lines_that_a_followed_log_lost_are_told_once(followed, whole):
    container, told = Logged(followed, whole), []
    assert engine.Container(container, "image").run(told.append) == 3
    assert told == ["one", "two", "three"]
    assert container.did[:4] == ["start", "follow", "wait", "read"]


def test_a_container_is_killed_where_its_lines_are_not_wanted():
    container = Logged([b"one\n", b"two\n"], [b"one\ntwo\n"])

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.Container(container, "image").run(stop)
    assert "kill" in container.did
