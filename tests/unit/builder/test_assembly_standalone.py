"""The assembly alone, as a builder image has it: beside a Python with nothing installed, and not always the newest."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import fleetfn_builder.assembly
import pytest

FOLDER = Path(fleetfn_builder.assembly.__file__).parent
FILES = sorted(FOLDER.glob("*.py"))


def test_it_is_imported_without_anything_else(tmp_path):
    (tmp_path / "fleetfn_builder").mkdir()
    (tmp_path / "fleetfn_builder" / "__init__.py").write_text("")
    shutil.copytree(FOLDER, tmp_path / "fleetfn_builder" / "assembly", ignore=shutil.ignore_patterns("__pycache__"))
    names = ", ".join(f"fleetfn_builder.assembly.{path.stem}" for path in FILES if path.stem != "__init__")
    told = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {names}"
    subprocess.run([sys.executable, "-I", "-S", "-c", told], check=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_written_in_the_grammar_of_python_3_9(path):
    ast.parse(path.read_text(), feature_version=(3, 9))
