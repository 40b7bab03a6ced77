"""Heads of functions tell the gateway what there is; Secrets that they name become files."""

import asyncio
import re
import stat

import msgspec
import pytest
from fake_api_server import FakeApi
from fleetfn_gateway.cluster.functions import Functions
from fleetfn_gateway.cluster.kube import Kube
from fleetfn_gateway.cluster.kube_objects import CONFIG_MAPS, ConfigMap
from fleetfn_gateway.cluster.secret_files import SecretFiles
from fleetfn_gateway.cluster.watching import Watching
from fleetfn_gateway.gateway import Gateway
from fleetfn_gateway.owner import Nobody
from fleetfn_gateway.queue import Queue
from fleetfn_spec.cluster import Head
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.secret import Secret
from gateway_doubles import arrival, function, mqtt, until


def head(name="f", *, revision="1" * 64, named=None, paused=()):
    connections = {}
    if named is not None:
        connections["mqtt"] = MqttConnection(url="mqtt://broker", username="fn", password=Secret(secret=named))
    made = Head(
        function=function(mqtt(), name=name).function,
        revision=revision,
        number=1,
        image="registry/f@sha256:0",
        environment="prod",
        mqtt=connections,
        paused=paused,
        created=1.0,
    )
    return msgspec.json.encode(made).decode()


class Place:
    """A gateway that follows the heads of a fake API server."""

    def __init__(self, api, tmp_path):
        self.api = api
        self.folder = tmp_path / "secrets"
        self.data = tmp_path / "data"
        self.told = 0
        self.dropped = []

    async def start(self):
        self.data.mkdir(exist_ok=True)
        self.queue = await Queue.open(self.data / "inbox.db", quota=2**30)
        self.gateway = Gateway(self.queue, Nobody(), data=self.data, retention=60, factories={})
        await self.gateway.open()
        self.kube = Kube(self.api.access, "alerts")
        self.secrets = SecretFiles(self.kube, self.folder)
        self.functions = Functions(self.gateway, self.secrets, "alerts", self._tell, self._drop)
        self.watching = Watching(
            self.kube,
            CONFIG_MAPS,
            ConfigMap,
            "fleetfn.dev/part=head",
            replace=self.functions.replace,
            change=self.functions.change,
        )
        self.task = asyncio.create_task(self.watching.run())

    async def stop(self):
        self.task.cancel()
        await self.gateway.close()
        await self.queue.close()
        await self.kube.close()

    async def _drop(self, name):
        self.dropped.append(name)

    async def _tell(self):
        self.told += 1

    def known(self):
        return {name: each.revision for name, each in self.gateway.functions.items()}


@pytest.fixture
async def place(tmp_path):
    async with FakeApi() as api:
        place = Place(api, tmp_path)
        await place.start()
        yield place
        await place.stop()


async def test_functions_come_change_and_go_with_their_heads(place):
    place.api.head("f", head())
    await until(lambda: place.known() == {"f": "1" * 12})
    made = place.gateway.functions["f"]
    assert (made.environment, made.place) == ("prod", "alerts")
    place.api.head("f", head(revision="2" * 64, paused=("live",)))
    await until(lambda: place.known() == {"f": "2" * 12})
    assert place.gateway.functions["f"].paused == ("live",)
    place.api.remove("configmaps", "f")
    await until(lambda: place.known() == {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "head.json cannot be read"),
        ("[]", "head.json cannot be read"),
        (head().replace("v1alpha1", "v9"), "fleetfn.dev/v1alpha1|Invalid enum"),
        (head("other"), "it is of function 'other'"),
    ],
    ids=["no-json", "no-head", "unknown-version", "another-function"],
)
async def test_a_head_that_cannot_be_read_changes_nothing_and_is_told(place, text, said):
    place.api.head("f", head())
    await until(place.known)
    place.api.head("f", text)
    problem = await until(lambda: place.functions.problems.get("f"))
    assert "ConfigMap 'f'" in problem
    assert "revision 111111111111 is taken for its head" in problem
    assert re.search(said, problem)
    assert place.known() == {"f": "1" * 12}
    place.api.head("f", head(revision="2" * 64))
    await until(lambda: place.known() == {"f": "2" * 12})
    assert place.functions.problems == {}


async def test_a_broken_head_is_no_reason_to_forget_its_function_when_all_are_listed(place):
    place.api.head("f", head())
    await until(place.known)
    await place.stop()
    place.api.head("f", "{")
    place.api.head("g", head("g"))
    await place.start()
    await until(lambda: place.known() == {"f": "1" * 12, "g": "1" * 12})
    assert "ConfigMap 'f'" in place.functions.problems["f"]


@pytest.mark.parametrize(("word", "left"), [("drop", 0), (None, 1), ("keep", 1)])
async def test_what_waits_goes_where_the_head_says_so(place, word, left):
    place.api.head("f", head())
    await until(place.known)
    await place.queue.put([arrival(1, trigger="live")])
    place.api.head("f", head(), annotations={"fleetfn.dev/rows": word} if word else {})
    place.api.remove("configmaps", "f")
    await until(lambda: place.known() == {})
    await until(lambda: place.told >= 2)
    rows = place.queue.counts().get("f", {})
    assert sum(each.waiting for each in rows.values()) == left


async def test_one_that_went_while_nobody_looked_keeps_what_waits(place):
    place.api.head("f", head(), annotations={"fleetfn.dev/rows": "drop"})
    await until(place.known)
    await place.queue.put([arrival(1, trigger="live")])
    await place.stop()
    place.api.remove("configmaps", "f")
    await place.start()
    await until(place.watching.synced.is_set)
    assert place.known() == {}
    assert place.queue.counts()["f"]["live"].waiting == 1


async def test_it_goes_on_with_what_it_knows_while_the_api_server_is_away(place):
    place.api.head("f", head())
    await until(place.known)
    await place.stop()
    await place.api.stop()
    await place.start()
    await until(lambda: place.watching.problem)
    assert place.known() == {"f": "1" * 12}
    await place.api.start()


async def test_a_secret_becomes_a_file_of_this_process_alone(place):
    place.api.secret("broker", password=b"s3cret", other=b"x")
    place.api.head("f", head(named="broker/password"))
    await until(place.known)
    path = place.folder / "broker" / "password"
    assert path.read_bytes() == b"s3cret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["password"]
    assert place.gateway.functions["f"].mqtt["mqtt"].password == Secret(file=str(path))
    place.api.head("f", head())
    await until(lambda: not path.exists())


@pytest.mark.parametrize(
    ("reference", "said"),
    [("nothing/password", "there is no Secret 'nothing'"), ("broker/nothing", "Secret 'broker' has no key 'nothing'")],
)
async def test_a_secret_that_is_not_there_is_told_and_taken_when_it_comes(place, reference, said, monkeypatch):
    monkeypatch.setattr("fleetfn_gateway.cluster.secret_files.SOON", 0.02)
    place.api.secret("broker", password=b"s3cret")
    place.api.head("f", head(named=reference))
    problem = await until(lambda: place.functions.problems.get("f"))
    assert said in problem
    assert place.known()
    following = asyncio.create_task(place.secrets.run())
    name, key = reference.split("/")
    place.api.secret(name, **{key: b"now"})
    await until(lambda: not place.functions.problems)
    assert (place.folder / reference).read_bytes() == b"now"
    following.cancel()


async def test_a_changed_secret_is_read_again(place, monkeypatch):
    monkeypatch.setattr("fleetfn_gateway.cluster.secret_files.LOOK", 0.02)
    place.api.secret("broker", password=b"old")
    place.api.head("f", head(named="broker/password"))
    await until(place.known)
    following = asyncio.create_task(place.secrets.run())
    place.api.secret("broker", password=b"new")
    await until(lambda: (place.folder / "broker" / "password").read_bytes() == b"new")
    following.cancel()


async def test_without_the_right_to_read_secrets_that_is_told(place):
    place.api.denied.add(("get", "secrets"))
    place.api.head("f", head(named="broker/password"))
    problem = await until(lambda: place.functions.problems.get("f"))
    assert "Secret 'broker' cannot be read" in problem
    assert "does not let" in problem
