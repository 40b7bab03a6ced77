"""How a function's image is run: what a container of it may do, what it meets, and that nothing of it stays."""

import io
import tarfile
from types import SimpleNamespace

import pytest
from fleetfn.errors import UsageError
from fleetfn_builder import containers
from fleetfn_builder.assembly import anatomy
from fleetfn_builder.builder import BuildError
from fleetfn_builder.containers import Run

SECRET = "s3cret-of-nobody"  # noqa: S105 - nobody's


class FakeContainer:
    def __init__(self, options):
        self.options = options
        self.did = []
        self.files = {}
        self.ports = {f"{anatomy.PORT}/tcp": [{"HostPort": "32768"}]}

    def put_archive(self, path, data):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                self.files[f"{path}/{member.name}"] = (tar.extractfile(member).read(), member)

    def start(self):
        self.did.append("start")

    def reload(self): ...

    def logs(self, *, stream, follow):
        """Followed, it lacks the end, as by Docker 20.10."""
        assert stream
        assert follow or "wait" in self.did
        return [b"importing\nrea", b"dy\nha"] if follow else [b"importing\nready", b"\nhalf a li", b"ne"]

    def kill(self, signal):
        self.did.append(signal)

    def wait(self):
        self.did.append("wait")
        return {"StatusCode": 75}

    def remove(self, **how):
        self.did.append(f"remove {how}")


class FakeEngine:
    def __init__(self, **images):
        self.images = images
        self.pulled = []
        self.pulls = {}

    def command(self, image):  # noqa: ARG002 - the engine's
        return ["/worker"], ["--port", "8080"]

    def create(self, options):
        self.container = FakeContainer(options)
        return self.container

    def image(self, name):
        return self.images.get(name)

    def pull(self, name):
        self.pulled.append(name)
        self.images |= self.pulls


def run(**more):
    return Run(image="hello:1", name="fleetfn-hello", volume="kept", **{"port": 8080, **more})


def test_a_container_may_do_as_little_as_it_needs():
    engine = FakeEngine()
    with containers.started(engine, run()) as one:
        options = engine.container.options
        assert one.url == "http://127.0.0.1:32768"
    assert options["read_only"]
    assert options["cap_drop"] == ["ALL"]
    assert options["security_opt"] == ["no-new-privileges"]
    assert "user" not in options
    assert "privileged" not in options
    assert options["ports"] == {"8080/tcp": ("127.0.0.1", 8080)}
    assert [(each["Target"], each["Source"]) for each in options["mounts"]] == [("/data", "kept")]
    assert (options["entrypoint"], options["command"]) == (["/worker"], ["--port", "8080"])


def test_on_the_machines_network_it_listens_on_loopback_alone():
    engine = FakeEngine()
    with containers.started(engine, run(network="host", port=9000)) as one:
        assert one.url == "http://127.0.0.1:9000"
    assert engine.container.options["command"] == ["--port", "8080", "--host", "127.0.0.1", "--port", "9000"]
    assert "ports" not in engine.container.options


def test_files_are_there_before_it_starts_and_its_users_alone():
    engine = FakeEngine()
    asked = run(files={"environments.yaml": b"{}", "0-password": SECRET.encode()}, environment={"TOKEN": SECRET})
    with containers.started(engine, asked):
        pass
    container = engine.container
    assert {path: content for path, (content, _) in container.files.items()} == {
        "/etc/fleetfn/environments.yaml": b"{}",
        "/etc/fleetfn/0-password": SECRET.encode(),
    }
    assert {(member.uid, member.mode) for _, member in container.files.values()} == {(anatomy.USER, 0o400)}
    assert container.options["environment"] == {"TOKEN": SECRET}
    assert container.did[0] == "start"
    assert SECRET not in repr(asked)


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt, BuildError("what it is used for fails")])
def test_whatever_happens_it_is_removed(ending):
    engine = FakeEngine()

    def use():
        with containers.started(engine, run()):
            if ending is not None:
                raise ending

    if ending is None:
        use()
    else:
        with pytest.raises(ending if isinstance(ending, type) else type(ending)):
            use()
    assert engine.container.did[-1] == "remove {'force': True, 'v': True}"


def test_its_lines_are_whole_and_its_exit_code_its_own():
    engine = FakeEngine()
    with containers.started(engine, run()) as one:
        assert list(one.lines()) == [b"importing", b"ready", b"half a line"]
        one.stop()
        assert one.exit_code() == 75
    assert "SIGTERM" in engine.container.did


def labelled(**labels):
    return SimpleNamespace(labels=labels)


OURS = labelled(**{anatomy.LABEL_FUNCTION: "hello"})


def test_an_image_is_found_in_the_engine_or_pulled():
    engine = FakeEngine(**{"hello:latest": OURS})
    assert containers.find(engine, "hello", print) == ("hello:latest", "hello")
    assert engine.pulled == []
    there = f"registry.example/hello@sha256:{'1' * 64}"
    engine.pulls = {there: OURS}
    said = []
    assert containers.find(engine, there.replace("@", ":1@"), said.append) == (there, "hello")
    assert said == [f"pulling {there}"]


@pytest.mark.parametrize("known", [{}, {"python:3.11": labelled()}], ids=["nowhere", "another's"])
def test_what_is_no_function_is_refused(known):
    with pytest.raises(BuildError, match=r"python:3\.11 is no image of a function"):
        containers.find(FakeEngine(**known), "python:3.11", print)


def test_what_is_no_name_of_an_image_is_told():
    with pytest.raises(UsageError, match="is no image reference"):
        containers.find(FakeEngine(), "Hello", print)
