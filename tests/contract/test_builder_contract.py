"""What Builder promises, over every builder there is."""

import itertools
import json
import os

import msgspec
import pytest
from builder_adapters import NO_SUCH, Buildpacks, Direct, DirectToRegistry, DirectToTarball, InMemory
from fleetfn_builder.assembly import anatomy
from fleetfn_builder.builder import BuildError
from fleetfn_plumbing import source
from fleetfn_spec.load import load_function
from fleetfn_spec.problems import SpecError

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""
ONE = "def hello(name: str) -> str:\n    return name\n"
TWO = "def hello(name: str) -> str:\n    return name + name\n"

CANARY = "canary-4f1d0c"
HIDDEN = "hidden-9b27ae"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(
    params=[
        "memory",
        "direct",
        "direct-tarball",
        pytest.param("direct-registry", marks=pytest.mark.registry),
        pytest.param("buildpacks", marks=[pytest.mark.registry, pytest.mark.docker]),
    ]
)
def adapter(request, tmp_path, shared):
    match request.param:
        case "memory":
            return InMemory(tmp_path, shared)
        case "direct":
            return Direct(tmp_path, shared)
        case "direct-tarball":
            return DirectToTarball(tmp_path, shared)
        case "buildpacks":
            request.getfixturevalue("docker_engine")
            given = [request.getfixturevalue(name) for name in ("registry", "builder_image", "base_tarball")]
            return Buildpacks(tmp_path, shared, *given)
        case _:
            return DirectToRegistry(tmp_path, shared, request.getfixturevalue("registry"))


@pytest.fixture
def write(tmp_path):
    def write(code=ONE, *, name="f", **files):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "function.yaml").write_text(FUNCTION)
        (folder / "handler.py").write_text(code)
        for path, content in files.items():
            (folder / path).write_text(content)
        return folder

    return write


def build(adapter, folder, *versions, new_cache=False, progress=lambda _: None, **more):
    return adapter.builder(new_cache=new_cache).build(adapter.request(folder, *versions, **more), progress)


def names(built):
    return [layer.name for layer in built.layers]


def by_name(built):
    return {layer.name: layer.digest for layer in built.layers}


def test_the_result_tells_what_was_made_and_where_it_is(adapter, write):
    folder = write()
    built = build(adapter, folder)
    seen = adapter.see()
    assert built.digest == seen.digest == adapter.resolve().digest
    assert (built.function, built.platforms, built.unchanged) == ("hello", ["linux/amd64"], False)
    assert built.builder == adapter.builder().name
    assert [(layer.digest, layer.size) for layer in built.layers] == [
        (layer.digest, layer.size) for layer in seen.manifest.layers
    ]
    assert built.size == sum(layer.size for layer in built.layers)
    assert names(built)[0] == "base"
    assert {"dependencies", "runtime", "sbom", "code"} <= set(names(built))
    assert json.loads(built.sbom)["bomFormat"] == "CycloneDX"
    assert seen.files()[anatomy.SBOM] == built.sbom


def test_the_revision_is_the_one_that_a_node_gives_the_folder(adapter, write):
    folder = write()
    function = msgspec.json.encode(load_function(folder), order="deterministic")
    assert build(adapter, folder).revision == source.digest(folder, source.files(folder), function)


def test_equal_folders_make_one_image_wherever_and_whenever(adapter, write):
    one, two = write(name="one"), write(name="two")
    os.utime(two / "handler.py", (1e9, 1e9))
    (two / "handler.py").chmod(0o600)
    first = build(adapter, one)
    second = build(adapter, two, "2", new_cache=True)
    assert first.digest == second.digest
    assert not second.unchanged


def test_another_line_of_code_changes_the_code_layer_alone(adapter, write):
    first = build(adapter, write(ONE))
    second = build(adapter, write(TWO))
    assert not second.unchanged
    changed = {name for name, digest in by_name(second).items() if by_name(first)[name] != digest}
    assert changed == {"code"}
    assert adapter.resolve().digest == second.digest != first.digest


def test_what_has_not_changed_is_not_built_again(adapter, write):
    folder = write()
    first = build(adapter, folder)
    second = build(adapter, folder)
    assert second.unchanged
    assert msgspec.structs.replace(second, unchanged=False) == first


def test_what_another_machine_has_left_is_not_built_again(adapter, write):
    folder = write()
    first = build(adapter, folder)
    second = build(adapter, folder, new_cache=True)
    assert second.unchanged
    assert msgspec.structs.replace(second, unchanged=False) == first


def test_code_that_is_taken_back_leads_to_the_image_of_before(adapter, write):
    first = build(adapter, write(ONE))
    build(adapter, write(TWO))
    third = build(adapter, write(ONE))
    assert (third.digest, third.unchanged) == (first.digest, False)
    assert adapter.resolve().digest == first.digest


def test_an_image_that_is_there_under_one_tag_comes_under_another(adapter, write):
    folder = write()
    first = build(adapter, folder, "1")
    second = build(adapter, folder, "1", "2")
    assert not second.unchanged
    assert adapter.resolve("2").digest == first.digest
    assert build(adapter, folder, "1", "2").unchanged


def test_a_fresh_build_makes_the_same_image(adapter, write):
    folder = write()
    first = build(adapter, folder)
    assert build(adapter, folder, fresh=True).digest == first.digest


def test_labels_and_process(adapter, write):
    folder = write()
    built = build(adapter, folder)
    process = adapter.see().config.config
    labels = process.labels
    assert labels[anatomy.LABEL_FUNCTION] == labels["org.opencontainers.image.title"] == "hello"
    assert labels[anatomy.LABEL_REVISION] == built.revision
    assert labels[anatomy.LABEL_SOURCE] == source.digest(folder, source.files(folder))
    assert labels[anatomy.LABEL_BUILDER] == built.builder
    assert len(labels[anatomy.LABEL_INPUTS]) == 64
    assert labels["org.opencontainers.image.base.digest"].startswith("sha256:")
    assert str(folder) not in json.dumps(labels)
    assert process.user == f"{anatomy.USER}:{anatomy.USER}"
    assert process.working_dir == anatomy.CODE
    assert process.exposed_ports == {"8080/tcp": {}}
    env = dict(each.partition("=")[::2] for each in process.env)
    assert anatomy.ENVIRONMENT.items() <= env.items()
    assert env[anatomy.REVISION] == built.revision


def test_the_code_lies_in_the_workspace_and_nobody_may_write_it(adapter, write):
    folder = write(**{"data.json": "{}"})
    (folder / "package").mkdir()
    (folder / "package" / "module.py").write_text("X = 1\n")
    (folder / "tool.sh").write_text("#!/bin/sh\n")
    (folder / "tool.sh").chmod(0o755)
    build(adapter, folder)
    seen = adapter.see()
    for name in ("function.yaml", "handler.py", "data.json", "package/module.py", "tool.sh"):
        path = f"{anatomy.CODE}/{name}"
        assert seen.files()[path] == (folder / name).read_bytes()
        mode, uid, _ = seen.modes[path]
        assert (uid, mode & 0o022) == (adapter.owner, 0)
        assert bool(mode & 0o001) == (name == "tool.sh")


def test_what_is_no_source_stays_out(adapter, write):
    folder = write(**{".env": "A=1", ".fnignore": "*.csv\nsecret/\n", "large.csv": "1", "kept.txt": "x"})
    for name in (".git", "secret", "__pycache__", ".venv"):
        (folder / name).mkdir()
        (folder / name / "inside").write_text(CANARY)
    build(adapter, folder)
    inside = [path for path in adapter.see().files() if path.startswith(f"{anatomy.CODE}/")]
    assert f"{anatomy.CODE}/kept.txt" in inside
    for part in (".git", ".env", "secret", ".venv", "large.csv", "inside"):
        assert not [path for path in inside if part in path.split("/")]


def test_values_of_build_variables_and_secrets_are_in_no_layer_config_or_line(adapter, write):
    lines = []
    env, secrets = {"UV_SOME": CANARY}, {"UV_TOKEN": HIDDEN}
    built = build(adapter, write(), env=env, secrets=secrets, new_cache=True, progress=lines.append)
    seen = adapter.see()
    everything = [seen.raw_config, built.sbom, "\n".join(lines).encode(), msgspec.json.encode(seen.manifest)]
    everything += [each for each in seen.files().values() if isinstance(each, bytes)]
    for value in (CANARY, HIDDEN):
        assert not [each for each in everything if value.encode() in each]


def test_another_build_variable_is_another_input(adapter, write):
    folder = write()
    build(adapter, folder)
    before = adapter.see().config.labels[anatomy.LABEL_INPUTS]
    build(adapter, folder, env={"UV_SOME": CANARY})
    assert adapter.see().config.labels[anatomy.LABEL_INPUTS] != before


def test_a_failure_leaves_what_stood_under_the_tag(adapter, write):
    before = build(adapter, write())
    with pytest.raises(BuildError, match=NO_SUCH):
        build(adapter, write(TWO, **{"requirements.txt": f"{NO_SUCH}\n"}))
    assert adapter.resolve().digest == before.digest
    assert adapter.leftovers == []


def test_ctrl_c_at_any_line_leaves_what_stood_under_the_tag_and_no_half_files(adapter, write):
    before = build(adapter, write())
    folder = write(TWO, **{"requirements.txt": "# none\n"})
    for line in itertools.count(0, adapter.breaks_off_at):
        try:
            after = build(adapter, folder, new_cache=True, progress=interrupted_at(line))
        except KeyboardInterrupt:
            assert adapter.resolve().digest == before.digest or not adapter.tags_itself
            assert adapter.leftovers == []
        else:
            break
    assert line > 1
    assert adapter.resolve().digest == after.digest != before.digest


def interrupted_at(number):
    """A progress during whose line of this number Ctrl-C is pressed."""
    lines = itertools.count()

    def progress(_):
        if next(lines) == number:
            raise KeyboardInterrupt

    return progress


def test_a_folder_without_function_is_refused_as_a_check_does(adapter, write, tmp_path):
    asked = adapter.request(write())
    (asked.folder / "function.yaml").unlink()
    with pytest.raises(SpecError) as caught:
        adapter.builder().build(asked, lambda _: None)
    assert caught.value.problems[0].message == "is not there"


def test_a_link_out_of_the_folder_is_refused(adapter, write, tmp_path):
    (tmp_path / "elsewhere").write_text(CANARY)
    folder = write()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BuildError, match="is a link to"):
        build(adapter, folder)


def test_a_source_that_is_too_large_is_refused_naming_the_largest(adapter, write):
    folder = write()
    with (folder / "model.bin").open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(BuildError, match=r"model\.bin \(65\.0 MiB\)") as caught:
        build(adapter, folder)
    assert ".fnignore" in caught.value.hint


def test_two_platforms_make_an_index(adapter, write):
    if not adapter.several_platforms:
        pytest.skip("it builds for the engine's own platform alone")
    built = build(adapter, write(), platforms=("amd64", "arm64"))
    assert built.platforms == ["linux/amd64", "linux/arm64"]
    one, two = adapter.see(architecture="amd64"), adapter.see(architecture="arm64")
    assert built.digest == one.digest == two.digest == adapter.resolve().digest
    assert (one.config.architecture, two.config.architecture) == ("amd64", "arm64")
    assert [layer.digest for layer in built.layers] == [layer.digest for layer in one.manifest.layers]
    assert build(adapter, write(), platforms=("amd64", "arm64")).unchanged
