"""What a build depends on: the source, its requirements, the time it is told."""

import os
import shutil
from pathlib import Path

import pytest
from fleetfn_builder import inputs, requirements
from fleetfn_builder.builder import BuildError
from fleetfn_spec.load import load_function

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "function.yaml").write_text(FUNCTION)
    (tmp_path / "handler.py").write_text("def hello(name: str) -> str:\n    return name\n")
    return tmp_path


def read(folder):
    lines = []
    return inputs.read_source(folder, load_function(folder), lines.append), lines


def test_the_size_of_the_source_is_said(folder):
    source, lines = read(folder)
    assert [name.name for name in source.names] == ["function.yaml", "handler.py"]
    assert lines == [f"source: 2 files, {source.size} B"]


def test_a_large_source_is_warned_of_with_its_largest_files(folder):
    for name, size in (("a.bin", 15), ("b.bin", 10)):
        with (folder / name).open("wb") as file:
            file.truncate(size * 1024 * 1024)
    _, lines = read(folder)
    assert lines[1].startswith("warning: ")
    assert ".fnignore" in lines[1]
    assert "a.bin (15.0 MiB), b.bin (10.0 MiB), " in lines[1]


def test_a_file_that_cannot_be_read_is_named(folder):
    function = load_function(folder)
    (folder / "gone").symlink_to(folder / "nowhere")
    with pytest.raises(BuildError, match="gone"):
        inputs.read_source(folder, function, lambda _: None)


def test_a_source_without_its_function_yaml_is_refused(folder):
    (folder / ".fnignore").write_text("*.yaml\n")
    with pytest.raises(BuildError, match=r"leaves out function\.yaml"):
        read(folder)


def test_a_name_that_is_not_utf_8_is_refused(folder):
    function = load_function(folder)
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9")).write_text("x")
    with pytest.raises(BuildError, match="not UTF-8"):
        inputs.read_source(folder, function, lambda _: None)


def test_the_time_is_1970_or_what_the_environment_says(monkeypatch):
    monkeypatch.delenv(inputs.EPOCH, raising=False)
    assert inputs.created() == 0
    monkeypatch.setenv(inputs.EPOCH, "1700000000")
    assert inputs.created() == 1_700_000_000
    for text in ("yesterday", "9" * 30):
        monkeypatch.setenv(inputs.EPOCH, text)
        with pytest.raises(BuildError, match=f"'{text}'"):
            inputs.created()


def test_a_digest_does_not_depend_on_the_order_of_a_mapping():
    assert inputs.digest({"a": 1, "b": 2}) == inputs.digest({"b": 2, "a": 1})
    assert inputs.digest("a", "b") != inputs.digest("ab")


@pytest.mark.parametrize("name", ["composing.py", "layering.py", "assembly/anatomy.py", "buildpack/building.py"])
def test_other_code_that_puts_images_together_is_another_input(tmp_path, name):
    package = tmp_path / "package"
    shutil.copytree(Path(inputs.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = inputs.shape_of(package)
    with (package / name).open("a") as code:
        code.write("OTHER = 1\n")
    assert inputs.shape_of(package) != before


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB")]
)
def test_sizes_in_words(size, words):
    assert inputs.in_words(size) == words


def asked(folder, text):
    (folder / "requirements.txt").write_text(text)
    return requirements.normalised(folder / "requirements.txt")


def test_comments_blanks_and_broken_lines_do_not_matter(tmp_path):
    plain = asked(tmp_path, "numpy==2.0\nhttpx>=0.27  \n")
    assert asked(tmp_path, "# what it needs\n\nnumpy==2.0   # arrays\nhttpx>=0.27\n") == plain
    assert asked(tmp_path, "numpy==2.0 \\\n  --hash=sha256:0\n") == ["numpy==2.0 --hash=sha256:0"]


def test_included_files_count(tmp_path):
    (tmp_path / "more.txt").write_text("numpy==2.0\n")
    before = asked(tmp_path, "-r more.txt\n-c more.txt\n")
    assert before == ["-r more.txt", "numpy==2.0", "-c more.txt", "numpy==2.0"]
    (tmp_path / "more.txt").write_text("numpy==2.1\n")
    assert asked(tmp_path, "-r more.txt\n-c more.txt\n") != before


LOCAL = [
    *("./own.whl", "./own", "-e ./own", "-e./own", "--editable=own", "./own[fast]", "own.whl --hash=sha256:00"),
    *("own @ ./own.whl", "own[fast] @ ./own", "own @ file:./own.whl", "own@file://{}/own.whl", "file:own.whl", "."),
    *("own @ ./o%77n.whl", "./own#subdirectory=x", "--find-links own", "-f ./own", "./own; python_version > '3'"),
]


@pytest.mark.parametrize("line", LOCAL)
def test_local_files_and_folders_count(tmp_path, line):
    (tmp_path / "own.whl").write_bytes(b"1")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "module.py").write_text("X = 1")
    line = line.format(tmp_path)
    before = asked(tmp_path, line)
    (tmp_path / "own.whl").write_bytes(b"2")
    (tmp_path / "own" / "module.py").write_text("X = 2")
    assert asked(tmp_path, line) != before


def test_a_file_of_an_index_is_left_to_uv(tmp_path):
    assert asked(tmp_path, "-c https://example.org/pins.txt\n") == ["-c https://example.org/pins.txt"]


def test_what_a_library_is_called_as_a_folder_beside_is_not_that_folder(tmp_path):
    (tmp_path / "numpy").mkdir()
    assert asked(tmp_path, "numpy==2.0\n") == ["numpy==2.0"]


def test_no_file_asks_for_nothing(tmp_path):
    assert requirements.normalised(tmp_path / "requirements.txt") == []


def test_files_that_include_themselves_or_what_is_not_there_are_refused(tmp_path):
    with pytest.raises(BuildError, match=r"requirements\.txt includes itself"):
        asked(tmp_path, "-r requirements.txt\n")
    with pytest.raises(BuildError, match=r"includes 'other\.txt', which is not there"):
        asked(tmp_path, "-r other.txt\n")


@pytest.mark.parametrize(
    ("lines", "pinned"),
    [
        ([], True),
        (["numpy==2.0", "httpx === 0.27 ; python_version > '3'"], True),
        (
            ["--index-url https://example.org/simple", "pkg @ https://example.org/pkg-1.whl", "./own.whl", "ab" * 32],
            True,
        ),
        (["numpy"], False),
        (["numpy>=2.0"], False),
        (["numpy==2.*"], False),
    ],
)
def test_what_is_pinned(lines, pinned):
    assert requirements.are_pinned(lines) is pinned
