"""What is read off a base image's layers: its Python, its C library, what is installed in it."""

import gzip
import io
import tarfile

import pytest
from base_images import FILES, tarred
from fleetfn_builder import base_facts
from fleetfn_builder.builder import BuildError, Platform

PATH = ("PATH=/usr/local/bin:/usr/bin:/bin",)
OPAQUE = ".wh..wh..opq"


def scan(*layers, env=PATH):
    opened = [
        (f"sha256:{number}", lambda files=files: io.BytesIO(tarred(files))) for number, files in enumerate(layers)
    ]
    return base_facts.scan("python:3-slim", "amd64", env, opened)


def test_a_debian_base():
    found = scan(FILES)
    assert (found.python, found.version, found.interpreter) == ("3.11", "3.11.2", "/usr/bin/python3.11")
    assert (found.libc, found.libc_version, found.architecture) == ("glibc", "2.36", "amd64")
    assert found.packages == [
        base_facts.Package("deb", "libc6", "2.36-9+deb12u10"),
        base_facts.Package("deb", "python3.11-minimal", "3.11.2-6+deb12u5"),
    ]


def test_an_official_python_image_says_its_version_and_comes_first_in_the_path():
    official = {"usr/local/bin/python3.12": b"", "usr/local/bin/python3": "python3.12"}
    found = scan(FILES, official, env=(*PATH, "PYTHON_VERSION=3.12.4"))
    assert (found.python, found.version, found.interpreter) == ("3.12", "3.12.4", "/usr/local/bin/python3.12")


def test_a_distroless_base_lists_each_package_in_a_file():
    found = scan(
        {
            "usr/bin/python3.11": b"",
            "usr/bin/python3": "/usr/bin/python3.11",
            "var/lib/dpkg/status.d/libc6": b"Package: libc6\nVersion: 2.36-9\n",
            "var/lib/dpkg/status.d/libc6.md5sums": b"0  usr/lib/libc.so.6\n",
        },
        env=(),
    )
    assert found.interpreter == "/usr/bin/python3.11"
    assert found.packages == [base_facts.Package("deb", "libc6", "2.36-9")]


def test_an_alpine_base():
    found = scan(
        {
            "usr/local/bin/python3.13": b"\x7fELF /lib/ld-musl-x86_64.so.1",
            "usr/local/bin/python3": "python3.13",
            "lib/ld-musl-x86_64.so.1": b"",
            "lib/ld-linux-x86-64.so.2": "libgcompat.so.0",
            "lib/apk/db/installed": b"P:musl\nV:1.2.5-r0\nA:x86_64\n\nP:busybox\nV:1.36.1-r29\n",
        }
    )
    assert (found.libc, found.libc_version) == ("musl", "")
    assert [each.name for each in found.packages] == ["busybox", "musl"]


def test_python_behind_alternatives_and_a_merged_usr():
    links = {"usr/bin/python3": "/etc/alternatives/python3", "etc/alternatives/python3": "/bin/python3.11"}
    assert scan(FILES | links, env=("PATH=/bin",)).interpreter == "/usr/bin/python3.11"


def test_a_python_whose_name_does_not_tell_is_known_by_its_library():
    files = {"opt/py/bin/python3": b"", "opt/py/lib/python3.12/os.py": b""}
    found = scan(files, env=("PATH=/opt/py/bin",))
    assert (found.python, found.interpreter) == ("3.12", "/opt/py/bin/python3")


def test_a_newer_python_beside_an_old_one_is_taken():
    old = {"usr/bin/python3.9": b"", "usr/bin/python3": "python3.9", "usr/local/bin/python3.12": b""}
    assert scan(old).python == "3.12"


def test_installed_distributions_are_known_by_their_metadata():
    files = FILES | {
        "usr/lib/python3/dist-packages/PyYAML-6.0.dist-info/METADATA": b"Name: PyYAML\nVersion: 6.0\n\nx\n"
    }
    assert base_facts.Package("pypi", "pyyaml", "6.0") in scan(files).packages


@pytest.mark.parametrize(
    "upper",
    [{"usr/bin/.wh.python3.11": b""}, {f"usr/bin/{OPAQUE}": b""}, {"usr/.wh.bin": b""}, {"usr/bin": b"a file now"}],
    ids=["file", "opaque", "folder", "replaced"],
)
def test_what_an_upper_layer_takes_away_is_gone(upper):
    with pytest.raises(BuildError, match="python:3-slim has no Python"):
        scan(FILES, upper)


def test_what_an_upper_layer_brings_beside_its_whiteouts_stays():
    found = scan(FILES, {f"usr/bin/{OPAQUE}": b"", "usr/bin/python3.12": b""})
    assert found.interpreter == "/usr/bin/python3.12"


def test_an_old_python_is_refused_by_name():
    with pytest.raises(BuildError, match=r"python:3-slim is too old: 3.9, /usr/bin/python3.9") as caught:
        scan({"usr/bin/python3.9": b"", "usr/bin/python3": "python3.9"})
    assert "3.11" in caught.value.hint


def test_links_in_a_circle_are_no_python():
    with pytest.raises(BuildError, match="no Python"):
        scan({"usr/bin/python3": "python", "usr/bin/python": "python3"})


@pytest.mark.parametrize("layer", [b"(\xb5/\xfd zstd", gzip.compress(tarred(FILES))[:-40]], ids=["zstd", "cut"])
def test_a_layer_that_does_not_read_is_named(layer):
    with pytest.raises(BuildError, match="layer sha256:1 of the base image python:3-slim"):
        base_facts.scan("python:3-slim", "amd64", PATH, [("sha256:1", lambda: io.BytesIO(layer))])


def test_another_architecture_is_refused_with_both_names():
    with pytest.raises(BuildError, match="for arm64, and amd64 is asked for"):
        base_facts.check_architecture("python:3-slim", "arm64", Platform("amd64"))
    base_facts.check_architecture("python:3-slim", "amd64", Platform("amd64"))


@pytest.mark.parametrize("size", [-5, 1 << 70], ids=["less than none", "without an end"])
def test_a_file_of_a_size_that_cannot_be_is_refused(size):
    member = tarfile.TarInfo("usr/bin/python3.11")
    member.size = size
    content = member.tobuf(tarfile.GNU_FORMAT) + bytes(10240)
    with pytest.raises(BuildError, match="does not read as a tar"):
        base_facts.scan("evil", "amd64", PATH, [("sha256:0", lambda: io.BytesIO(content))])
