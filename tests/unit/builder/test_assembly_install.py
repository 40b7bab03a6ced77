"""Dependencies for an image: what is resolved, what the tree is like, what is said where it does not work."""

import csv
import hashlib
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fleetfn_builder import wheel as wheels
from fleetfn_builder.assembly import anatomy, layers
from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.install import Wanted, install
from fleetfn_builder.assembly.target import Target, of_this_machine
from tiny_wheels import sdist, wheel

AMD64 = Target("3.11", "amd64", "glibc", "/usr/bin/python3.11", "2.36")
ARM64 = Target("3.11", "arm64", "glibc", "/usr/bin/python3.11", "2.36")
HERE = of_this_machine()
OTHER = ARM64 if HERE.architecture == "amd64" else AMD64

BUILDS = """
from pathlib import Path
from tiny_wheels import wheel

def build_wheel(into, settings=None, metadata=None):
    return wheel(Path(into), "{name}", tag="{tag}").name
"""
REFUSES = """
def build_wheel(into, settings=None, metadata=None):
    print("looking for the vehicle bus")
    raise SystemExit("no CAN driver found")
"""


@pytest.fixture(name="env", scope="session")
def _env(tmp_path_factory):
    return {"UV_CACHE_DIR": str(tmp_path_factory.mktemp("uv")), "UV_OFFLINE": "1"}


@pytest.fixture(name="links")
def _links(tmp_path):
    wheel(tmp_path / "links", "alpha", requires=["beta>=1"], scripts=["alpha"])
    wheel(tmp_path / "links", "beta")
    wheel(tmp_path / "links", "beta", "2.0")
    return tmp_path / "links"


def requirements(folder, *lines):
    folder.mkdir(exist_ok=True)
    path = folder / "requirements.txt"
    path.write_text("".join(f"{line}\n" for line in ("--no-index", *lines)))
    return path


def installed(tree, target=AMD64):
    return sorted(path.name.removesuffix(".dist-info") for path in (tree / target.site_packages).glob("*.dist-info"))


def do(tmp_path, env, *lines, target=AMD64, into="tree", needs=("beta",), progress=lambda _: None, **wanted):
    wanted.setdefault("find_links", [tmp_path / "links"])
    asked = Wanted(needs, requirements(tmp_path / "fn", *lines), env=env, **wanted)
    install(tmp_path / into, target, asked, uv=wheels.uv_path(), progress=progress)
    return tmp_path / into


def refusal(*arguments, **more):
    with pytest.raises(AssemblyError) as caught:
        do(*arguments, **more)
    return caught.value


def rows(tree, name, target=AMD64):
    with (tree / target.site_packages / f"{name}.dist-info" / "RECORD").open(newline="") as lines:
        return {row[0]: row[1:] for row in csv.reader(lines)}


@pytest.mark.usefixtures("links")
def test_what_the_user_and_the_worker_need_is_installed_together(tmp_path, env):
    tree = do(tmp_path, env, "alpha")
    assert installed(tree) == ["alpha-1.0", "beta-2.0"]


@pytest.mark.usefixtures("links")
def test_the_tree_is_an_environment_of_the_images_python(tmp_path, env):
    tree = do(tmp_path, env, "alpha")
    assert (tree / "bin/python").readlink() == Path("/usr/bin/python3.11")
    assert (tree / "bin/python3.11").readlink() == Path("python")
    config = dict(line.split(" = ") for line in (tree / "pyvenv.cfg").read_text().splitlines())
    assert config == {"home": "/usr/bin", "include-system-site-packages": "false", "version": "3.11"}
    assert (tree / "bin/alpha").read_text().startswith(f"#!{anatomy.PYTHON}\n")


@pytest.mark.usefixtures("links")
def test_python_runs_in_it(tmp_path, env):
    tree = do(tmp_path, env, "alpha", target=HERE)
    told = "import alpha, sys; print(sys.prefix, alpha.__file__)"
    done = subprocess.run([tree / "bin/python", "-I", "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tree), str(tree / HERE.site_packages / "alpha/__init__.py")]


@pytest.mark.usefixtures("links")
def test_nothing_in_it_names_the_place_or_the_time_of_its_making(tmp_path, env):
    tree = do(tmp_path, env, "alpha", str(wheel(tmp_path / "fn", "gamma")))
    names = {path.name for path in tree.rglob("*")}
    assert not names & {"direct_url.json", "REQUESTED", "uv_cache.json", "uv_build.json", ".lock", "__pycache__"}
    here = (str(tmp_path).encode(), sys.executable.encode())
    assert not [path for path in tree.rglob("*") if path.is_file() and any(each in path.read_bytes() for each in here)]


@pytest.mark.usefixtures("links")
def test_a_record_names_what_is_there_and_nothing_else(tmp_path, env):
    tree = do(tmp_path, env, "alpha")
    site = tree / AMD64.site_packages
    found = rows(tree, "alpha-1.0")
    assert "../../../bin/alpha" in found
    assert found.pop("alpha-1.0.dist-info/RECORD") == ["", ""]
    for name, (digest, size) in found.items():
        content = (site / name).read_bytes()
        assert (digest[:7], int(size)) == ("sha256=", len(content))
    assert {(site / name).resolve() for name in found} >= {path.resolve() for path in (site / "alpha").rglob("*.py")}


def test_data_and_headers_lie_where_an_environment_has_them(tmp_path, env):
    files = {
        "delta/__init__.py": "",
        "delta-1.0.data/data/share/delta/map.txt": "m",
        "delta-1.0.data/data/etc/delta.conf": "c",
        "delta-1.0.data/headers/delta.h": "h",
        "delta-1.0.data/scripts/delta.sh": "#!/bin/sh\n",
        "delta-1.0.data/scripts/deltas": "#!python\nprint(1)\n",
    }
    wheel(tmp_path / "links", "delta", files=files)
    tree = do(tmp_path, env, needs=["delta"])
    assert (tree / "share/delta/map.txt").read_text() == "m"
    assert (tree / "etc/delta.conf").is_file()
    assert list((tree / "include").rglob("delta.h"))
    assert (tree / "bin/delta.sh").read_text() == "#!/bin/sh\n"
    assert (tree / "bin/deltas").read_text() == f"#!{anatomy.PYTHON}\nprint(1)\n"
    assert "../../../share/delta/map.txt" in rows(tree, "delta-1.0")


def test_a_package_that_is_called_bin_stays_a_package(tmp_path, env):
    wheel(tmp_path / "links", "bin", files={"bin/__init__.py": "", "bin/tool.py": ""})
    tree = do(tmp_path, env, needs=["bin"])
    assert (tree / AMD64.site_packages / "bin/tool.py").is_file()


@pytest.mark.usefixtures("links")
def test_modes_are_plain_whatever_the_umask(tmp_path, env):
    before = os.umask(0)
    try:
        tree = do(tmp_path, env, "alpha")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.lstat().st_mode) for path in tree.rglob("*") if not path.is_symlink()}
    assert modes == {0o755, 0o644}
    assert stat.S_IMODE((tree / "bin/alpha").stat().st_mode) == 0o755


@pytest.mark.usefixtures("links")
def test_equal_inputs_are_equal_layers_in_any_folder_and_with_any_cache(tmp_path, env):
    first = do(tmp_path, env, "alpha")
    (tmp_path / "a longer place").mkdir()
    cold = {**env, "UV_CACHE_DIR": str(tmp_path / "cold")}
    second = do(tmp_path, cold, "alpha", into="a longer place/tree")
    digests = {
        layers.write(tmp_path / f"{number}.tar.gz", [layers.Tree(tree, anatomy.DEPENDENCIES)]).digest
        for number, tree in enumerate((first, second))
    }
    assert len(digests) == 1


def test_two_packages_with_the_same_file_are_still_reproducible(tmp_path, env):
    for name in ("one", "two", "three"):
        wheel(tmp_path / "links", name, files={f"{name}/__init__.py": "", "tests/__init__.py": f"# {name}\n"})
    contents, heard = set(), []
    for number in range(3):
        cold = {**env, "UV_CACHE_DIR": str(tmp_path / f"cold{number}")}
        tree = do(tmp_path, cold, needs=["one", "two", "three"], into=f"tree{number}", progress=heard.append)
        contents.add((tree / AMD64.site_packages / "tests/__init__.py").read_text())
    assert len(contents) == 1
    assert "warning: more than one package brings tests/__init__.py: the last one's is taken" in heard


@pytest.mark.usefixtures("links")
def test_uvs_cache_is_not_touched(tmp_path, env):
    own = {**env, "UV_CACHE_DIR": str(tmp_path / "own")}
    do(tmp_path, own, "alpha")

    def state():
        return {
            path: (stat.S_IMODE(path.stat().st_mode), hashlib.sha256(path.read_bytes()).hexdigest())
            for path in (tmp_path / "own" / "archive-v0").rglob("*")
            if path.is_file()
        }

    before = state()
    do(tmp_path, own, "alpha", into="again")
    assert state() == before


@pytest.mark.usefixtures("links")
def test_relative_paths_start_at_the_folder_of_the_requirements(tmp_path, env):
    wheel(tmp_path / "fn" / "wheels", "gamma")
    wheel(tmp_path / "fn" / "wheels", "delta")
    (tmp_path / "fn" / "more.txt").write_text("./wheels/gamma-1.0-py3-none-any.whl\n")
    (tmp_path / "fn" / "held.txt").write_text("beta<2\n")
    lines = ("-r more.txt", "-c held.txt", "--find-links wheels", "delta", "alpha  # ours")
    assert installed(do(tmp_path, env, *lines)) == ["alpha-1.0", "beta-1.0", "delta-1.0", "gamma-1.0"]


def test_hashes_are_checked(tmp_path, env, links):
    digest = hashlib.sha256((links / "beta-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert "beta-1.0" in installed(do(tmp_path, env, f"beta==1.0 --hash=sha256:{digest}", into="good"))
    error = refusal(tmp_path, env, f"beta==1.0 --hash=sha256:{'0' * 64}")
    assert "Hash mismatch for `beta==1.0`" in error.message


def test_hashes_for_all_include_what_the_worker_needs(tmp_path, env, links):
    digest = hashlib.sha256((links / "beta-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    wheel(links, "worker")
    lines = ("--require-hashes", f"beta==1.0 --hash=sha256:{digest}")
    assert installed(do(tmp_path, env, *lines, needs=["worker>=1", "beta>=1"])) == ["beta-1.0", "worker-1.0"]


def test_hashes_that_the_environment_asks_for_are_for_all(tmp_path, env, links):
    digest = hashlib.sha256((links / "beta-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    asks = {**env, "UV_REQUIRE_HASHES": "1"}
    assert installed(do(tmp_path, asks, f"beta==1.0 --hash=sha256:{digest}", needs=["beta>=1"])) == ["beta-1.0"]
    assert "hash" in refusal(tmp_path, asks, "beta==1.0", into="none").message


@pytest.mark.usefixtures("links")
def test_a_file_that_is_not_there_is_named(tmp_path, env):
    with pytest.raises(AssemblyError, match=r"none\.txt"):
        install(
            tmp_path / "tree",
            AMD64,
            Wanted(["beta"], tmp_path / "none.txt", env=env),
            uv=wheels.uv_path(),
        )


@pytest.mark.usefixtures("links")
def test_constraints_hold_the_workers_versions(tmp_path, env):
    assert installed(do(tmp_path, env, "alpha", constraints=["beta==1.0"])) == ["alpha-1.0", "beta-1.0"]


@pytest.mark.usefixtures("links")
def test_a_conflict_is_told_in_the_resolvers_words_however_wide_the_terminal_is(tmp_path, env, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    error = refusal(tmp_path, env, "beta==1.0", constraints=["beta==2.0"])
    assert error.message.splitlines() == [
        "the dependencies cannot be installed for linux/amd64, Python 3.11, glibc:",
        "No solution found when resolving dependencies",
        "Because you require beta==1.0 and beta==2.0, we can conclude that your requirements are unsatisfiable.",
    ]
    assert "held at the versions it runs with here" in error.hint
    assert not (tmp_path / "tree").exists()


@pytest.mark.usefixtures("links")
def test_a_package_that_is_not_there_is_named(tmp_path, env):
    error = refusal(tmp_path, env, "omega", constraints=["beta==2.0"])
    assert "omega" in error.message
    assert error.hint == "check the names and versions in requirements.txt"


@pytest.mark.usefixtures("links")
def test_a_line_that_is_none_is_quoted(tmp_path, env):
    error = refusal(tmp_path, env, "beta=1.0")
    assert "beta=1.0" in error.message
    assert len(error.message.splitlines()) <= 6


def test_wheels_of_the_target_are_taken_on_any_machine(tmp_path, env):
    for architecture in ("x86_64", "aarch64"):
        tag = f"cp311-cp311-manylinux_2_17_{architecture}"
        wheel(tmp_path / "links", "native", tag=tag, files={"native.py": architecture})
    for target, architecture in ((AMD64, "x86_64"), (ARM64, "aarch64")):
        tree = do(tmp_path, env, needs=["native"], target=target, into=architecture)
        assert (tree / target.site_packages / "native.py").read_text() == architecture


def test_another_minor_version_of_python_is_no_obstacle(tmp_path, env):
    wheel(tmp_path / "links", "native", tag="cp313-cp313-manylinux_2_17_x86_64")
    target = Target("3.13", "amd64", "glibc", "/usr/local/bin/python3.13")
    tree = do(tmp_path, env, needs=["native"], target=target)
    assert (tree / "lib/python3.13/site-packages/native").is_dir()


def test_a_package_without_a_wheel_for_the_platform_is_named(tmp_path, env):
    wheel(tmp_path / "links", "native", tag="cp311-cp311-manylinux_2_17_x86_64")
    error = refusal(tmp_path, env, "native", target=ARM64)
    assert "native==1.0 has no wheels with a matching platform tag" in error.message
    assert "linux/arm64" in error.message
    assert "linux/arm64 if it is compiled" in error.hint


def test_only_wheels_that_the_bases_c_library_can_load_are_taken(tmp_path, env):
    wheel(tmp_path / "links", "native", tag="cp311-cp311-manylinux_2_34_x86_64")
    old = Target("3.11", "amd64", "glibc", "/usr/bin/python3.11", "2.31")
    assert "native" in refusal(tmp_path, env, "native", target=old).message
    assert installed(do(tmp_path, env, "native", target=AMD64, needs=[])) == ["native-1.0"]


def test_sources_are_built_where_the_image_is_of_this_machines_kind(tmp_path, env):
    sdist(tmp_path / "links", "homemade", backend=BUILDS.format(name="homemade", tag="py3-none-any"))
    assert installed(do(tmp_path, env, needs=["homemade"], target=HERE), HERE) == ["homemade-1.0"]


def test_sources_are_not_built_for_another_kind_of_machine(tmp_path, env):
    sdist(tmp_path / "links", "homespun", backend=BUILDS.format(name="homespun", tag="py3-none-any"))
    error = refusal(tmp_path, env, needs=["homespun"], target=OTHER)
    assert "homespun" in error.message
    assert "--no-build" not in error.message
    assert "only wheels are taken" in error.hint


def test_a_build_that_fails_is_told_by_its_last_lines(tmp_path, env):
    sdist(tmp_path / "links", "broken", backend=REFUSES)
    error = refusal(tmp_path, env, needs=["broken"], target=HERE)
    assert "Failed to build `broken==1.0`" in error.message
    assert "no CAN driver found" in error.message
    assert error.hint.startswith("choose a version that has a wheel")
    assert len(error.message.splitlines()) < 20


def test_a_link_to_a_source_is_installed_as_a_copy(tmp_path, env):
    folder = tmp_path / "fn" / "own"
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "own"\nversion = "1.0"\n'
    )
    (folder / "backend.py").write_text(BUILDS.format(name="own", tag="py3-none-any"))
    (folder / "tiny_wheels.py").write_text(Path(sys.modules["tiny_wheels"].__file__).read_text())
    tree = do(tmp_path, env, "-e ./own", needs=[], target=HERE, find_links=[])
    assert (tree / HERE.site_packages / "own/__init__.py").is_file()


@pytest.mark.usefixtures("links")
def test_secrets_never_show(tmp_path, env):
    secrets = {"UV_INDEX_URL": "http://build:s3cret-token@127.0.0.1:9/simple", "TOKEN": "another-secret"}
    heard = []
    with pytest.raises(AssemblyError) as caught:
        install(
            tmp_path / "tree",
            AMD64,
            Wanted(
                ["omega @ http://me:another-secret@127.0.0.1:9/omega-1.0-py3-none-any.whl", "beta"],
                env={**env, "UV_OFFLINE": "0", "UV_HTTP_RETRIES": "0"},
                secrets=secrets,
            ),
            uv=wheels.uv_path(),
            progress=heard.append,
        )
    text = f"{caught.value.message} {caught.value.hint} {heard} {Wanted([], secrets=secrets)!r}"
    assert "127.0.0.1:9" in text
    assert not re.search("s3cret|another-secret|build:|me:", text)


def test_without_uv_it_says_where_uv_comes_from(tmp_path):
    with pytest.raises(AssemblyError, match="cannot be started") as caught:
        install(tmp_path / "tree", AMD64, Wanted(["beta"]), uv=tmp_path / "uv")
    assert "fleetfn[build]" in caught.value.hint
    assert not (tmp_path / "tree").exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "mine").write_text("")
    with pytest.raises(AssemblyError, match="is not empty"):
        install(tmp_path / "tree", AMD64, Wanted(["beta"]), uv=tmp_path / "uv")
    assert (tmp_path / "tree" / "mine").is_file()


def test_a_full_disk_that_uv_meets_is_told(tmp_path):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'error: Failed to install: No space left on device (os error 28)'\nexit 2\n")
    uv.chmod(0o755)
    with pytest.raises(AssemblyError, match="No space left on device") as caught:
        install(tmp_path / "tree", AMD64, Wanted(["beta"]), uv=uv)
    assert caught.value.hint.startswith("free some space")


def test_an_interrupt_ends_uv_and_what_it_started_and_leaves_nothing(tmp_path):
    pids = tmp_path / "pids"
    slow = tmp_path / "uv"
    slow.write_text(f"#!/bin/sh\nsleep 60 &\necho $$ $! > {pids}\necho Resolved something\nwait\n")
    slow.chmod(0o755)

    def interrupt(line):
        if "Resolved" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install(tmp_path / "tree", AMD64, Wanted(["beta"]), uv=slow, progress=interrupt)
    assert not (tmp_path / "tree").exists()
    for pid in pids.read_text().split():
        eventually(lambda pid=pid: state(pid) in {None, "Z"})


def state(pid):
    """None: there is no such process. `Z`: it has ended, and nobody asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def eventually(holds):
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)
