"""Bytecode of a tree: equal wherever it is made, taken without a look at the source, with the image's names in it."""

import importlib.util
import marshal
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from fleetfn_builder.assembly import bytecode
from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.target import of_this_machine

HERE = of_this_machine().python
UNCHECKED = 0b01
SOURCE = "KINDS = frozenset({'hot', 'cold', 'warm', 'unknown'})\n\ndef fail(x):\n    assert x in {'a', 'b', 'c'}\n"


def compiled(folder, name="code", source=SOURCE):
    tree = folder / name
    (tree / "pack").mkdir(parents=True)
    (tree / "pack" / "__init__.py").write_text("")
    (tree / "pack" / "module.py").write_text(source)
    bytecode.compile_tree(tree, "/workspace", Path(sys.executable))
    return Path(importlib.util.cache_from_source(str(tree / "pack" / "module.py")))


def test_every_module_has_bytecode(tmp_path):
    pyc = compiled(tmp_path)
    assert pyc.is_file()
    assert (pyc.parent / pyc.name.replace("module", "__init__")).is_file()


def test_it_is_taken_without_a_look_at_the_source(tmp_path):
    pyc = compiled(tmp_path)
    assert struct.unpack("<I", pyc.read_bytes()[4:8])[0] == UNCHECKED
    os.utime(tmp_path / "code" / "pack" / "module.py", (1, 1))
    told = "import pack.module; print(pack.module.__cached__)"
    done = subprocess.run(
        [sys.executable, "-B", "-v", "-c", told],
        env={"PYTHONPATH": str(tmp_path / "code")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"matches {tmp_path / 'code/pack/module.py'}" in done.stderr


def test_names_in_it_are_the_images(tmp_path):
    content = compiled(tmp_path).read_bytes()
    code = marshal.loads(content[16:])  # noqa: S302 - made by this test
    assert code.co_filename == "/workspace/pack/module.py"
    assert str(tmp_path).encode() not in content


def test_it_is_equal_in_any_folder_with_any_hash_seed(tmp_path, monkeypatch):
    first = compiled(tmp_path)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    second = compiled(tmp_path / "some" / "other", "place")
    assert first.read_bytes() == second.read_bytes()


def test_what_does_not_compile_is_left_alone(tmp_path):
    assert not compiled(tmp_path, source="print 'of another Python'\n").exists()


def test_an_interpreter_that_does_not_start_is_told(tmp_path):
    with pytest.raises(AssemblyError, match="cannot be started"):
        bytecode.compile_tree(tmp_path, "/workspace", tmp_path / "python")
    with pytest.raises(AssemblyError, match="cannot compile /workspace"):
        bytecode.compile_tree(tmp_path, "/workspace", Path(shutil.which("false")))


def test_this_python_compiles_for_its_own_version():
    assert bytecode.interpreter(HERE) == Path(sys.executable)


def fake(folder, name, says):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


def test_another_version_is_looked_for_on_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = fake(tmp_path, "python3.99", "echo 3.99")
    assert bytecode.interpreter("3.99") == found


@pytest.mark.parametrize("says", ["echo 'version is not set'; exit 127", "echo 3.98"], ids=["shim", "other"])
def test_a_file_that_is_only_called_so_is_not_taken(tmp_path, monkeypatch, says):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    fake(tmp_path, "python3.99", says)
    assert bytecode.interpreter("3.99") is None


def test_uv_is_asked_where_path_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    found = fake(tmp_path, "somewhere", "echo 3.99")
    uv = fake(tmp_path, "uv", f"echo {found}")
    assert bytecode.interpreter("3.99", uv) == found
    assert bytecode.interpreter("3.99", fake(tmp_path, "uv", "exit 2")) is None
    assert "no Python 3.99 on this machine" in bytecode.why_not("3.99")


def test_modules_of_the_folder_one_stands_in_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "py_compile.py").write_text("raise SystemExit('taken from the folder')\n")
    monkeypatch.chdir(tmp_path)
    assert compiled(tmp_path).is_file()
