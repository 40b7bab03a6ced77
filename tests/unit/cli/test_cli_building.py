"""build: what stands on its line, what it says, and what it never says. The images are a builder's in memory."""

import json
from pathlib import Path

import pytest
from fleetfn_builder import choosing
from fleetfn_builder.builder import BuildError, ToEngine, ToFile, ToRegistry
from fleetfn_builder.memory import MemoryBuilder
from fleetfn_cli import checking

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
  - {name: telemetry, connection: fleet, kafka: {topic: telemetry}}
"""

TOKEN = "t0ken-of-nobody"  # noqa: S105 - nobody's


class Recording(MemoryBuilder):
    def __init__(self):
        super().__init__()
        self.requests = []

    def build(self, request, progress):
        self.requests.append(request)
        return super().build(request, progress)


@pytest.fixture
def builder(monkeypatch, tmp_path):
    """Stands in for whoever would build; an engine is there."""
    made = Recording()
    made.asked = []

    def choose(name, *, builder_image=None):
        made.asked.append((name, builder_image))
        return made, "it is a test"

    monkeypatch.setattr(choosing, "choose", choose)
    monkeypatch.setattr(choosing, "has_engine", lambda: True)
    monkeypatch.setenv("FN_CACHE", str(tmp_path / "cache"))
    return made


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "fns" / "hello"
    folder.mkdir(parents=True)
    (folder / "function.yaml").write_text(FUNCTION)
    (folder / "handler.py").write_text("def hello(name: str) -> str:\n    return name\n")
    return folder


def test_an_image_gets_the_name_of_its_function_and_revision(fn, builder, folder):
    said = fn("build", folder)
    assert said.status == 0, said.err
    [request] = builder.requests
    revision = said.out.split()[2]
    assert [str(each) for each in request.tags] == [
        f"docker.io/library/hello:{revision}",
        "docker.io/library/hello:latest",
    ]
    assert len(revision) == 12
    assert isinstance(request.destination, ToEngine)
    assert f"hello revision {revision} built by memory" in said.out
    assert "builder memory: it is a test" in said.err
    assert "fn run hello:" in said.err


def test_the_result_can_be_read_by_programs(fn, builder, folder):
    first = json.loads(fn("build", folder, "-o", "json", "-q").out)
    assert first["function"] == "hello"
    assert first["builder"] == "memory"
    assert not first["unchanged"]
    assert {each["name"]: each["new"] for each in first["layers"]} == dict.fromkeys(
        ("base", "dependencies", "runtime", "sbom", "code"), True
    )
    again = json.loads(fn("build", folder, "-o", "json", "-q").out)
    assert again["unchanged"]
    assert again["digest"] == first["digest"]
    assert "sbom" not in again
    (folder / "handler.py").write_text("def hello(name: str) -> str:\n    return name.upper()\n")
    edited = json.loads(fn("build", folder, "-o", "json", "-q").out)
    assert [each["name"] for each in edited["layers"] if each["new"]] == ["code"]
    assert len(builder.requests) == 3


def test_an_image_that_is_there_is_said_to_be(fn, builder, folder):
    fn("build", folder)
    assert "is there already" in fn("build", folder).out


def test_the_bill_of_materials_can_be_had_as_a_file(fn, builder, folder, tmp_path):
    assert fn("build", folder, "--sbom", "bill.json").status == 0
    assert json.loads((tmp_path / "bill.json").read_text())["bomFormat"] == "CycloneDX"


def test_a_bill_that_cannot_be_written_is_told(fn, builder, folder):
    said = fn("build", folder, "--sbom", "nowhere/bill.json")
    assert said.status == 2
    assert "the bill of materials cannot be written to nowhere/bill.json: No such file or directory" in said.err


def test_pushing_needs_a_name_with_a_host(fn, builder, folder):
    for line in ([], ["-t", "hello:1"], ["-t", "team/hello:1"]):
        said = fn("build", folder, "--push", *line)
        assert said.status == 2
        assert "registry.example/" in said.err
    assert builder.requests == []
    assert fn("build", folder, "--push", "-t", "registry.example/team/hello:1", "-t", "docker.io/me/hello").status == 0
    [request] = builder.requests
    assert isinstance(request.destination, ToRegistry)
    assert [str(each) for each in request.tags] == ["registry.example/team/hello:1", "docker.io/me/hello:latest"]


def test_a_file_lies_where_it_is_told_and_never_in_the_source(fn, builder, folder, monkeypatch):
    assert fn("build", folder, "--to", "out.tar").status == 0
    assert builder.requests[-1].destination == ToFile(Path("out.tar"))
    for inside in (folder / "out.tar", folder / "sub" / "out"):
        said = fn("build", folder, "--to", inside)
        assert said.status == 2
        assert "would become a part of the source" in said.err
    (folder / ".fnignore").write_text("*.tar\nimages/\n")
    assert fn("build", folder, "--to", folder / "out.tar").status == 0
    assert fn("build", folder, "--to", folder / "images" / "out").status == 0
    assert fn("build", folder, "--to", "out", "--push").status == 2
    monkeypatch.chdir(folder)
    assert fn("build", "--to", "out2.tar").status == 0


def test_without_an_engine_it_is_left_beside_the_folder(fn, builder, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(choosing, "has_engine", lambda: False)
    fn("build", folder)
    assert builder.requests[-1].destination == ToFile(Path("hello.oci"))
    monkeypatch.chdir(folder)
    said = fn("build")
    assert builder.requests[-1].destination == ToFile(folder.parent / "hello.oci")
    assert str(folder.parent / "hello.oci") in said.out


def test_secrets_come_by_name_or_file_and_are_never_shown(fn, builder, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("UV_INDEX_URL", f"https://me:{TOKEN}@index.example/simple")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    said = fn("build", folder, "--secret", "UV_INDEX_URL", "--secret", "TOKEN=@token", "--debug")
    assert said.status == 0
    [request] = builder.requests
    assert request.secrets == {"UV_INDEX_URL": f"https://me:{TOKEN}@index.example/simple", "TOKEN": TOKEN}
    assert TOKEN not in repr(request)
    assert TOKEN not in said.out + said.err


def test_a_secret_on_the_line_is_refused_without_being_shown(fn, builder, folder):
    said = fn("build", folder, "--secret", f"TOKEN={TOKEN}")
    assert said.status == 2
    assert "stands on the command line" in said.err
    assert "--secret TOKEN=@FILE" in said.err
    assert TOKEN not in said.out + said.err


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (["--secret", "NOBODY"], "the environment has no NOBODY"),
        (["--secret", "A=@nowhere"], "nowhere cannot be read"),
        (["--env", "bench"], "the environment has no bench"),
        (["--env", "1=2"], "'1' is no name of a variable"),
        (["--platform", "windows/amd64"], "images cannot be built for 'windows/amd64'"),
        (["--mirror", "docker.io"], "'docker.io' is no mirror"),
        (["--username", "me"], "--username and --password-stdin belong together"),
        (["-t", "Hello"], "'Hello' is no image reference"),
    ],
    ids=lambda each: each[0].strip("-") if isinstance(each, list) else "",
)
def test_what_cannot_be_is_refused_before_anything_is_built(fn, builder, folder, line, problem):
    said = fn("build", folder, *line)
    assert said.status == 2
    assert problem in said.err
    assert builder.requests == []


def test_the_rest_of_the_line_reaches_the_builder(fn, builder, folder, monkeypatch, tmp_path):
    (tmp_path / "wheel.whl").touch()
    (tmp_path / "password").write_text(f"{TOKEN}\n")
    with (tmp_path / "password").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        said = fn(
            *("build", folder, "--platform", "linux/arm64,linux/amd64", "--base", "oci:base", "--env", "A=b=c"),
            *("--insecure", "harbor.lan", "--mirror", "docker.io=harbor.lan/hub", "--fleetfn", "wheel.whl", "--fresh"),
            *("--username", "me", "--password-stdin", "--builder-image", "builder:1"),
        )
    assert said.status == 0, said.err
    [request] = builder.requests
    assert list(map(str, request.platforms)) == ["linux/arm64", "linux/amd64"]
    assert (request.base, request.env, request.fresh) == ("oci:base", {"A": "b=c"}, True)
    assert request.wheel == Path("wheel.whl")
    assert (request.access.username, request.access.password) == ("me", TOKEN)
    assert request.access.insecure == {"harbor.lan"}
    assert request.access.mirrors == {"docker.io": "harbor.lan/hub"}
    assert builder.asked == [(None, "builder:1")]
    assert TOKEN not in said.out + said.err


def test_options_have_variables(fn, builder, folder, monkeypatch):
    monkeypatch.setenv("FN_BUILD_TAG", "registry.example/a:1 registry.example/b:1")
    monkeypatch.setenv("FN_BUILD_PUSH", "1")
    assert fn("build", folder).status == 0
    assert [str(each) for each in builder.requests[0].tags] == ["registry.example/a:1", "registry.example/b:1"]


def test_a_folder_is_checked_as_before_a_deploy_and_once(fn, builder, folder, monkeypatch):
    (folder / "handler.py").write_text("def hello(name: str, what) -> str:\n    return name\n")
    said = fn("build", folder)
    assert said.status == 1
    assert "handler.py:1" in said.err
    assert builder.requests == []
    (folder / "handler.py").write_text("def hello(name: str) -> str:\n    return name\n")
    asked = []
    real = checking.check_handlers
    monkeypatch.setattr(checking, "check_handlers", lambda *given, **more: asked.append(given) or real(*given, **more))
    assert [fn("build", folder).status for _ in range(2)] == [0, 0]
    assert len(asked) == 1


def test_what_could_not_be_checked_is_said_each_time(fn, builder, folder):
    (folder / "requirements.txt").write_text("nobodys-module\n")
    (folder / "handler.py").write_text("import nobodys_module\n\n\ndef hello(name: str) -> str:\n    return name\n")
    for _ in range(2):
        said = fn("build", folder)
        assert said.status == 0
        assert "Warning: the handlers were not checked" in said.err


def test_a_folder_without_a_function_is_told(fn, builder, tmp_path):
    (tmp_path / "empty").mkdir()
    said = fn("build", "empty")
    assert said.status == 1
    assert "function.yaml" in said.err


def test_a_build_that_fails_says_why(fn, builder, folder):
    builder._broken = lambda _: "no wheel of numpy for linux/arm64"
    said = fn("build", folder)
    assert said.status == 1
    assert "Error: no wheel of numpy for linux/arm64" in said.err
    assert said.out == ""


def test_warnings_of_a_builder_are_warnings(fn, builder, folder, monkeypatch):
    def build(request, progress):
        progress("warning: the source is large")
        raise BuildError("enough")

    monkeypatch.setattr(builder, "build", build)
    assert "Warning: the source is large" in fn("build", folder).err
