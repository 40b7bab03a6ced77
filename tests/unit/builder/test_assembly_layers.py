"""Layers: what is in them, that they are equal for equal files, and that nothing is left of one that failed."""

import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from fleetfn_builder.assembly import layers
from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.layers import Folder, Text, Tree


def tree(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def members(layer):
    with tarfile.open(layer.path) as tar:
        return {member.name: member for member in tar}


def content(layer, name):
    with tarfile.open(layer.path) as tar:
        return tar.extractfile(name).read()


def test_a_tree_lies_at_its_path_with_its_parents_once(tmp_path):
    source = tree(tmp_path / "source", handler_py="x = 1\n", data__limits_json="{}")
    layer = layers.write(tmp_path / "out", [Tree(source, "/opt/code")])
    assert list(members(layer)) == [
        "opt",
        "opt/code",
        "opt/code/data",
        "opt/code/data/limits.json",
        "opt/code/handler.py",
    ]
    assert content(layer, "opt/code/handler.py") == b"x = 1\n"


def test_an_empty_folder_may_belong_to_another_user(tmp_path):
    layer = layers.write(tmp_path / "out", [Text(b"", "/opt/file"), Folder("/data", 65532)])
    found = members(layer)
    assert found["data"].isdir()
    assert (found["data"].uid, found["data"].gid, found["data"].mode) == (65532, 65532, 0o750)
    assert found["opt"].uid == found["opt/file"].uid == 0


def test_nothing_of_this_machine_is_in_it(tmp_path):
    source = tree(tmp_path / "source", a_py="a", run_sh="b")
    (source / "a.py").chmod(0o600)
    (source / "run.sh").chmod(0o777)
    found = members(layers.write(tmp_path / "out", [Tree(source, "/code")]))
    assert {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in found.values()} == {(0, 0, "", "", 0)}
    modes = {name: oct(one.mode) for name, one in found.items()}
    assert modes == {"code": "0o755", "code/a.py": "0o644", "code/run.sh": "0o755"}


def test_digests_and_size_are_those_of_the_file(tmp_path):
    layer = layers.write(tmp_path / "out", [Tree(tree(tmp_path / "source", a_py="a" * 10_000), "/code")])
    packed = layer.path.read_bytes()
    assert layer.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}"
    assert layer.size == len(packed)


def test_equal_trees_are_equal_layers(tmp_path):
    first = tree(tmp_path / "one", b_py="b", a_py="a", sub__c_py="c")
    second = tree(tmp_path / "another" / "place", sub__c_py="c", a_py="a", b_py="b")
    os.utime(second / "a.py", (1, 1))
    made = [
        layers.write(tmp_path / f"out{number}.tar.gz", [Tree(source, "/code")])
        for number, source in enumerate((first, second))
    ]
    assert made[0].digest == made[1].digest


@pytest.mark.parametrize("change", ["content", "mode", "name"])
def test_what_differs_makes_another_layer(tmp_path, change):
    before = layers.write(tmp_path / "one", [Tree(tree(tmp_path / "source", a_py="a"), "/code")])
    path = tmp_path / "source" / "a.py"
    if change == "content":
        path.write_text("b")
    elif change == "mode":
        path.chmod(0o755)
    else:
        path.rename(path.with_name("b.py"))
    assert layers.write(tmp_path / "two", [Tree(tmp_path / "source", "/code")]).digest != before.digest


def test_only_the_files_that_are_named_are_taken(tmp_path):
    source = tree(tmp_path / "source", handler_py="x", other_txt="s", sub__kept_py="k", empty__more_txt="o")
    names = [Path("handler.py"), Path("sub/kept.py")]
    found = members(layers.write(tmp_path / "out", [Tree(source, "/code", names)]))
    assert list(found) == ["code", "code/handler.py", "code/sub", "code/sub/kept.py"]


def test_parts_share_their_parents(tmp_path):
    source = tree(tmp_path / "source", a_py="a")
    (tmp_path / "one.json").write_text("{}")
    parts = [
        Tree(source, "/layers/x"),
        Text(b"bom", "/layers/sbom/sbom.json"),
        Tree(tmp_path / "one.json", "/layers/f"),
    ]
    layer = layers.write(tmp_path / "out", parts)
    names = ["layers", "layers/f", "layers/sbom", "layers/sbom/sbom.json", "layers/x", "layers/x/a.py"]
    assert list(members(layer)) == names
    assert content(layer, "layers/sbom/sbom.json") == b"bom"


def test_two_parts_cannot_have_the_same_file(tmp_path):
    source = tree(tmp_path / "source", a_py="a")
    with pytest.raises(AssemblyError, match=r"/code/a\.py"):
        layers.write(tmp_path / "out", [Tree(source, "/code"), Text(b"b", "/code/a.py")])
    with pytest.raises(AssemblyError, match="/code in one layer"):
        layers.write(tmp_path / "out", [Text(b"b", "/code"), Tree(source, "/code")])


def test_links_that_stay_inside_are_kept(tmp_path):
    source = tree(tmp_path / "source", lib__real_so="so")
    (source / "lib" / "link.so").symlink_to("real.so")
    (source / "current").symlink_to("lib")
    found = members(layers.write(tmp_path / "out", [Tree(source, "/code")]))
    assert found["code/lib/link.so"].linkname == "real.so"
    assert found["code/current"].linkname == "lib"
    assert "code/current/real.so" not in found


def test_links_to_files_of_the_image_are_kept(tmp_path):
    source = tree(tmp_path / "source")
    (source / "python").symlink_to("/usr/bin/python3.11")
    (source / "python3").symlink_to("python")
    found = members(layers.write(tmp_path / "out", [Tree(source, "/env")]))
    assert {name: one.linkname for name, one in found.items() if one.issym()} == {
        "env/python": "/usr/bin/python3.11",
        "env/python3": "python",
    }


def test_an_absolute_link_into_the_tree_becomes_the_file(tmp_path):
    source = tree(tmp_path / "source", real_txt="text")
    (source / "link.txt").symlink_to(source / "real.txt")
    layer = layers.write(tmp_path / "out", [Tree(source, "/code")])
    assert content(layer, "code/link.txt") == b"text"
    assert members(layer)["code/link.txt"].isreg()


def test_a_link_to_a_file_that_is_left_out_becomes_the_file(tmp_path):
    source = tree(tmp_path / "source", real_txt="text")
    (source / "link.txt").symlink_to("real.txt")
    layer = layers.write(tmp_path / "out", [Tree(source, "/code", [Path("link.txt")])])
    assert content(layer, "code/link.txt") == b"text"


def test_a_link_that_leads_out_is_refused(tmp_path):
    source = tree(tmp_path / "source")
    (tmp_path / "secret").write_text("s")
    (source / "link").symlink_to("../secret")
    with pytest.raises(AssemblyError, match="out of its folder"):
        layers.write(tmp_path / "out", [Tree(source, "/code")])


def test_long_and_foreign_names_keep(tmp_path):
    source = tmp_path / "source"
    name = "/".join(["ordner" * 8] * 5) + "/zähler-車両.py"
    (source / name).parent.mkdir(parents=True)
    (source / name).write_text("x")
    layer = layers.write(tmp_path / "out", [Tree(source, "/code")])
    assert f"code/{name}" in members(layer)


def test_an_unreadable_file_is_named_and_nothing_is_left(tmp_path):
    source = tree(tmp_path / "source", a_py="a")
    with pytest.raises(AssemblyError, match=r"gone\.py cannot be read"):
        layers.write(tmp_path / "out", [Tree(source, "/code", [Path("a.py"), Path("gone.py")])])
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


FULL = """
import os, resource, signal, sys
from pathlib import Path
from fleetfn_builder.assembly import layers
from fleetfn_builder.assembly.errors import AssemblyError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Path(sys.argv[1])
try:
    layers.write(folder / "out", [layers.Tree(folder / "source", "/code")])
except AssemblyError as error:
    print(error.message)
print(sorted(os.listdir(folder)))
"""


def test_a_disk_that_takes_no_more_is_told_and_nothing_is_left(tmp_path):
    """A limit on the size of files stands for the disk: the write fails half-way, as on a full one."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "noise").write_bytes(os.urandom(500_000))
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"the layer {tmp_path / 'out'} cannot be written: File too large",
        "['source']",
    ]


GREEDY = """
import resource, sys
from pathlib import Path
from fleetfn_builder.assembly import layers
folder = Path(sys.argv[1])
layers.write(folder / "warm", [layers.Text(b"x", "/x")])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layers.write(folder / "out", [layers.Tree(folder / "source", "/code")], level=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_large_files_are_not_held_in_memory(tmp_path):
    (tmp_path / "source").mkdir()
    with (tmp_path / "source" / "large").open("wb") as large:
        large.truncate(200_000_000)
    done = subprocess.run([sys.executable, "-c", GREEDY, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000  # KiB
