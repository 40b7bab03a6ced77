"""Where a builder image's programs come from."""

from __future__ import annotations

import io
import tarfile

import pytest
from fleetfn_builder import lifecycle_programs
from fleetfn_builder.builder import BuildError, Platform

DESCRIPTION = b"""
[lifecycle]
version = "0.20.1"
[apis.buildpack]
supported = ["0.9", "0.10"]
[apis.platform]
supported = ["0.12"]
"""


def release(path, **left_out):
    with tarfile.open(path, "w:gz") as tar:
        for name in ("lifecycle.toml", "lifecycle/lifecycle", "lifecycle/launcher"):
            member = tarfile.TarInfo(name)
            content = DESCRIPTION if name.endswith(".toml") else b"program"
            member.size, member.mode = len(content), 0o755
            if name not in left_out.get("without", ()):
                tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("lifecycle/creator")
        link.type, link.linkname = tarfile.SYMTYPE, "lifecycle"
        tar.addfile(link)
        outside = tarfile.TarInfo("../outside")
        outside.size = 1
        tar.addfile(outside, io.BytesIO(b"x"))
    return path


def test_takes_a_release_as_it_is_packed(tmp_path):
    found = lifecycle_programs.named(release(tmp_path / "l.tgz"), tmp_path)
    assert (found.version, found.platform_apis, found.buildpack_apis) == ("0.20.1", ["0.12"], ["0.9", "0.10"])
    assert (found.folder / "creator").read_bytes() == b"program"
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path.parent / "outside").exists()
    assert lifecycle_programs.named(tmp_path / "lifecycle-release", tmp_path) == found


@pytest.mark.parametrize(
    ("without", "message"),
    [(("lifecycle.toml",), "lifecycle.toml cannot be read"), (("lifecycle/launcher",), "it lacks launcher")],
)
def test_says_what_a_release_lacks(tmp_path, without, message):
    with pytest.raises(BuildError, match=message):
        lifecycle_programs.named(release(tmp_path / "l.tgz", without=without), tmp_path)


def test_says_that_go_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(lifecycle_programs, "_GO", ())
    with pytest.raises(BuildError, match="Go is not installed") as caught:
        lifecycle_programs.built(tmp_path / "cache", Platform("amd64"), lambda _: None)
    assert "--lifecycle" in caught.value.hint
    assert not list((tmp_path / "cache" / "lifecycle").iterdir())


def test_a_build_that_fails_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho 'go: downloading a v1'\necho 'no route to proxy' >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(BuildError, match=r"cannot be built:\nno route to proxy"):
        lifecycle_programs.built(tmp_path / "cache", Platform("amd64"), lambda _: None)
    assert not list((tmp_path / "cache" / "lifecycle").iterdir())


def test_builds_once(tmp_path, monkeypatch):
    go = tmp_path / "go"
    go.write_text(
        f'#!/bin/sh\necho "$GOARCH $*" >>{tmp_path}/calls\nwhile [ "$1" != -o ]; do shift; done\ntouch "$2"\n'
    )
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = lifecycle_programs.built(tmp_path / "cache", Platform("arm64"), lambda _: None)
    assert lifecycle_programs.built(tmp_path / "cache", Platform("arm64"), lambda _: None) == found
    programs = sorted([*lifecycle_programs.PHASES, "launcher", "lifecycle"])
    assert sorted(each.name for each in found.folder.iterdir()) == programs
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [line.partition(" ")[0] for line in calls] == ["arm64", "arm64"]
    assert found.version == "0.21.17"
