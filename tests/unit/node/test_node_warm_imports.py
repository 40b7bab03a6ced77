"""What a warm parent loads for a function: the imports of its modules, never the modules themselves."""

import sys

import pytest
from fleetfn_node import parent, warm_imports


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_imports_of_the_handler_and_of_modules_beside_it_are_found(tmp_path):
    write(
        tmp_path,
        handler="import wave, os.path\nfrom rules import hot\nfrom fleetfn import State\nimport wave\n",
        rules="import colorsys\nfrom . import more\nimport handler\n",
    )
    assert warm_imports.outside_imports(tmp_path, "handler") == ["wave", "os.path", "fleetfn", "colorsys"]


def test_packages_and_relative_imports_are_followed(tmp_path):
    write(tmp_path, pack__inner="import sndhdr_like\nfrom . import outer\n", pack__outer="import wave\n")
    (tmp_path / "pack" / "__init__.py").write_text("from .inner import x\n")
    assert warm_imports.outside_imports(tmp_path, "pack") == ["sndhdr_like"]


def test_imports_inside_functions_and_broken_files_are_left_alone(tmp_path):
    write(tmp_path, handler="import broken\ndef f():\n    import wave\n", broken="import (\n")
    assert warm_imports.outside_imports(tmp_path, "handler") == []


def test_what_cannot_be_imported_is_named_and_the_rest_is_loaded(tmp_path):
    sys.modules.pop("colorsys", None)
    write(tmp_path, handler="import no_such_module_here\nimport colorsys\nraise SystemExit('the handler ran')\n")
    assert warm_imports.load(tmp_path, "handler") == ("no_such_module_here",)
    assert "colorsys" in sys.modules


async def test_a_process_with_a_running_loop_must_not_fork(monkeypatch):
    monkeypatch.setattr(parent, "_threads", lambda: 1)
    assert "event loop" in parent.why_not_to_fork()


def test_a_process_with_threads_must_not_fork(monkeypatch):
    monkeypatch.setattr(parent, "_threads", lambda: 3)
    assert parent.why_not_to_fork().startswith("3 threads run")


@pytest.mark.parametrize("threads", [1])
def test_one_thread_and_no_loop_may_fork(monkeypatch, threads):
    monkeypatch.setattr(parent, "_threads", lambda: threads)
    assert parent.why_not_to_fork() == ""
