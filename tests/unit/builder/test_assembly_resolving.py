"""What besides requirements.txt says which versions are taken."""

import json

import pytest
from fleetfn_builder.assembly import resolving


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "team" / "alert"
    made.mkdir(parents=True)
    return made


def told(folder, **env):
    found = resolving.settings(folder, {"XDG_CONFIG_HOME": str(folder.parent / "config"), **env})
    json.dumps(found)
    return found


def test_nothing_said_is_nothing(folder):
    assert told(folder, PATH="/bin", UV_INDEX_URL="https://user:password@index.example") == []


def test_variables_count_and_what_is_in_the_files_they_name(folder):
    assert told(folder, UV_RESOLUTION="lowest") == [["UV_RESOLUTION", "lowest"]]
    (folder / "pins.txt").write_text("idna<3\n")
    before = told(folder, UV_CONSTRAINT="pins.txt")
    (folder / "pins.txt").write_text("idna<4\n")
    assert told(folder, UV_CONSTRAINT="pins.txt") != before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("uv.toml", 'constraint-dependencies = ["idna<{}"]'),
        ("pyproject.toml", '[tool.uv]\nconstraint-dependencies = ["idna<{}"]'),
        ("uv.toml", '[pip]\nexclude-newer = "202{}-01-01"'),
        ("../uv.toml", 'override-dependencies = ["idna=={}"]'),
        ("../config/uv/uv.toml", 'no-binary-package = ["idna{}"]'),
    ],
)
def test_files_of_uv_count_wherever_it_looks_for_them(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(1))
    first = told(folder)
    path.write_text(text.format(2))
    second = told(folder)
    assert first
    assert second
    assert first != second
    assert told(folder, UV_NO_CONFIG="1") == told(folder, UV_NO_CONFIG="true")


def test_the_nearest_file_alone_counts_as_for_uv(folder):
    (folder / "uv.toml").write_text('resolution = "lowest"')
    near = told(folder)
    (folder.parent / "uv.toml").write_text('resolution = "highest"')
    assert told(folder) == near


def test_where_packages_come_from_does_not_count(folder):
    (folder / "uv.toml").write_text(
        'index-url = "https://user:password@index.example"\nresolution = "lowest"\n[pip]\nfind-links = ["/wheels"]\n'
    )
    assert told(folder) == [{"resolution": "'lowest'"}]


def test_a_file_that_does_not_read_is_left_to_uv(folder):
    (folder / "uv.toml").write_bytes(b"= \xff")
    assert told(folder) == []
