"""Listening sockets: ports, descriptors, who may connect."""

import asyncio
import errno
import resource
import socket

import pytest
from fleetfn.errors import UsageError
from fleetfn_runtime import http_listener
from http_doubles import until


class Crowded:
    """A listening socket that has no descriptors left, `times` times."""

    def __init__(self, times):
        self.real = http_listener.tcp("127.0.0.1", 0)
        self.family = self.real.family
        self.times = times

    def accept(self):
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self.real.accept()

    def __getattr__(self, name):
        return getattr(self.real, name)


async def test_running_out_of_descriptors_pauses_accepting_and_loses_nobody(caplog):
    accepted = []
    crowded = Crowded(2)
    listener = http_listener.Listener(crowded, accepted.append, crowded=0.01)
    client = await asyncio.to_thread(socket.create_connection, crowded.getsockname())
    await until(lambda: accepted)
    assert "ulimit -n" in caplog.text
    assert accepted[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    for each in (client, *accepted):
        each.close()
    listener.close()


def test_as_many_descriptors_as_the_process_may_have():
    allowed = http_listener.allow_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert allowed == min(hard, http_listener.DESCRIPTORS)
    assert soft >= allowed


def test_a_port_in_use_is_named_with_the_next_step():
    with http_listener.tcp("127.0.0.1", 0) as first:
        host, port = first.getsockname()
        with pytest.raises(UsageError) as error:
            http_listener.tcp(host, port)
    assert str(port) in error.value.message
    assert "--port" in error.value.hint
