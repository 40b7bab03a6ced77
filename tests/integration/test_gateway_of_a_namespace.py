"""A cluster's gateway as a process: starting while the API server is away, ending, two on one folder, what it lacks."""

import asyncio
import signal
import sys
import time

import pytest
from certificates import Authority
from fake_api_server import FakeApi
from gateway_doubles import until
from running_node import free_port

END = 20.0
"""Seconds to end after SIGTERM, of the 30 that Kubernetes gives."""


@pytest.fixture
def ports():
    """Of this test alone: by name, those of one gateway after the other, and `api`."""
    return dict(zip(("inbox", "scaler", "control", "health", "activator", "api"), free_ports(), strict=False))


def free_ports():
    """Each another one."""
    given = set()
    while True:
        port = free_port()
        if port not in given:
            given.add(port)
            yield port


class Program:
    def __init__(self, tmp_path, ports, *, folder=None, api=None, how=("-m", "fleetfn_gateway.cluster"), **flags):
        config = tmp_path / "kubeconfig"
        if api is not None:
            config.write_text(f"""
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "http://127.0.0.1:{api.port}"}}}}]
users: [{{name: test, user: {{}}}}]
""")
            flags = {"kubeconfig": config, **flags}
        tls = folder or Authority().issue(tmp_path / "tls", "fleetfn-gateway")
        options = {"data": tmp_path / "data", "namespace": "alerts", "tls": tls, "secrets": tmp_path / "secrets"}
        options |= {f"{name}-port": ports[name] for name in ("inbox", "scaler", "control", "health")}
        options |= {"activator-ports": f"{ports['activator']}-{ports['activator']}"} | flags
        self.health = ports["health"]
        self.command = [sys.executable, *how]
        self.command += [part for name, value in options.items() for part in (f"--{name}", str(value))]

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(*self.command, stderr=asyncio.subprocess.PIPE)
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    async def end(self):
        """(exit code, log)."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self):
        _, log = await asyncio.wait_for(self.process.communicate(), END + 60)
        return self.process.returncode, log.decode()

    async def ask(self, path):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.health)
        except ConnectionRefusedError:
            return 0
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return int(answer.split(b" ")[1])


async def test_it_starts_while_the_api_server_is_away_and_ends_when_told(tmp_path, ports):
    api = FakeApi()
    api.port = ports["api"]  # nobody takes it while the API server is away
    async with api:
        await api.stop()
        async with Program(tmp_path, ports, api=api) as gateway:
            await until(lambda: _is(gateway, "/healthz", 200))
            assert await gateway.ask("/readyz") == 503
            await api.start()
            await until(lambda: _is(gateway, "/readyz", 200))
            began = time.monotonic()
            code, log = await gateway.end()
    assert code == 0, log
    assert time.monotonic() - began < END
    assert "does not answer" in log
    assert "Traceback" not in log


async def _is(gateway, path, status):
    return await gateway.ask(path) == status


PATIENT = """
import sys
from fleetfn_gateway import keeping
from fleetfn_gateway.cluster import __main__
keeping.Keeping.__init__.__kwdefaults__["wait"] = 60.0
sys.exit(__main__.main())
"""
"""As `python -m fleetfn_gateway.cluster`, for a first one that takes its time to end."""


async def test_a_second_one_on_the_same_folder_waits_and_takes_over(tmp_path, ports):
    """As a pod that is started anew while the one before it still ends."""
    authority = Authority().issue(tmp_path / "tls", "fleetfn-gateway")
    async with FakeApi() as api, Program(tmp_path, ports, api=api, folder=authority) as first:
        await until(lambda: _is(first, "/readyz", 200))
        async with Program(tmp_path, ports, api=api, folder=authority, how=("-c", PATIENT)) as second:
            code, log = await first.end()
            assert code == 0, log
            await until(lambda: _is(second, "/readyz", 200))
            assert (await second.end())[0] == 0


async def test_a_second_one_on_the_same_folder_ends_where_the_first_stays(tmp_path, ports):
    authority = Authority().issue(tmp_path / "tls", "fleetfn-gateway")
    async with FakeApi() as api, Program(tmp_path, ports, api=api, folder=authority) as first:
        await until(lambda: _is(first, "/healthz", 200))
        async with Program(tmp_path, ports, api=api, folder=authority) as second:
            code, log = await second.ended()
        assert code == 1
        assert f"runs on the data folder {str(tmp_path / 'data')!r} already (pid {first.process.pid})" in log
        assert await first.ask("/healthz") == 200


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"kubeconfig": "/nowhere/config"}, "the kubeconfig '/nowhere/config' cannot be used"),
        ({"tls": "/nowhere/tls"}, "/nowhere/tls"),
        ({"inbox-port": "{control}"}, "port {control}"),
        ({"activator-ports": "9-5"}, "'9-5' is no range of ports"),
        ({"quota": "much"}, "'much' is no number of bytes"),
    ],
)
async def test_what_it_lacks_is_told(tmp_path, ports, flags, words):
    flags = {name: value.format(**ports) for name, value in flags.items()}
    async with FakeApi() as api, Program(tmp_path, ports, api=api, **flags) as gateway:
        code, log = await gateway.ended()
    assert code in (1, 2)
    assert words.format(**ports) in log
    assert "Traceback" not in log


async def test_outside_of_pods_it_asks_for_a_kubeconfig(tmp_path, ports):
    async with Program(tmp_path, ports) as gateway:
        code, log = await gateway.ended()
    assert code == 1
    assert "--kubeconfig FILE" in log
