"""Images in files: contents by digest, layout folders, tarballs; and what people type to name them."""

import fcntl
import gzip
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from fleetfn.errors import UsageError
from fleetfn_builder import images, opening, references
from fleetfn_builder.archives import Archive
from fleetfn_builder.blobs import Blobs, remove_left, written
from fleetfn_builder.builder import Access, BuildError, Platform, ToFile
from fleetfn_builder.delivering import put_all
from fleetfn_builder.image_store import ImageStore
from fleetfn_builder.layouts import Layout
from small_images import SmallImage, index_of, small

AMD64 = Platform("amd64")


def leave(store: ImageStore, image: SmallImage, *versions: str) -> None:
    with store:
        put_all(store, image.parts)
        store.tag(image.manifest_bytes, images.MANIFEST, versions)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_content_that_fails_halfway_leaves_no_file(tmp_path: Path):
    descriptor = images.describe(b"x" * 3_000_000, images.LAYER)
    with pytest.raises(BuildError, match="1 of the 3000000 bytes"):
        Blobs(tmp_path).put(descriptor, lambda: io.BytesIO(b"x"))
    assert names(tmp_path) == set()


def test_a_file_that_is_too_short_is_not_taken_for_the_content(tmp_path: Path):
    content = b"whole"
    descriptor = images.describe(content, images.LAYER)
    blobs = Blobs(tmp_path)
    path = blobs.put(descriptor, lambda: io.BytesIO(content))
    path.write_bytes(b"who")
    assert not blobs.has(descriptor)
    blobs.put(descriptor, lambda: io.BytesIO(content))
    assert path.read_bytes() == content


def test_a_content_that_changed_on_the_disk_is_found_when_it_is_read(tmp_path: Path):
    descriptor = images.describe(b"right", images.LAYER)
    blobs = Blobs(tmp_path)
    blobs.put(descriptor, lambda: io.BytesIO(b"right")).write_bytes(b"wrong")
    with (
        blobs.open(descriptor) as content,
        pytest.raises(BuildError, match=f"{images.digest_of(b'wrong')}, and should be {descriptor.digest}"),
    ):
        content.read()


@pytest.fixture
def little_room():
    """Files of this process may have 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("store", [Layout, Archive])
def test_where_a_file_cannot_grow_nothing_is_half_left(tmp_path: Path, store):
    image = small(os.urandom(100_000).hex())
    with pytest.raises(BuildError, match="cannot be written: File too large"):
        leave(store(tmp_path / "image.tar"), image, "1")
    assert names(tmp_path) <= {f"image.tar/blobs/{image.manifest.config.digest.replace(':', '/')}"}


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 64 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.parametrize("store", [Layout, Archive])
def test_on_a_full_disk_nothing_is_half_left_and_the_hint_is_to_make_room(small_disk: Path, store):
    leave(store(small_disk / "image.tar"), small("first"), "1")
    before = names(small_disk)
    image = small(os.urandom(100_000).hex())
    with pytest.raises(BuildError, match="cannot be written: No space left on device") as caught:
        leave(store(small_disk / "image.tar"), image, "1")
    assert "Make room" in caught.value.hint
    assert names(small_disk) - before <= {f"image.tar/blobs/{image.manifest.config.digest.replace(':', '/')}"}
    assert store(small_disk / "image.tar").resolve("1") == small("first").descriptor


def test_a_layout_keeps_its_other_versions(tmp_path: Path):
    first, second = small("first"), small("second")
    leave(Layout(tmp_path), first, "1", "latest")
    leave(Layout(tmp_path), second, "2", "latest")
    layout = Layout(tmp_path)
    assert layout.resolve("1") == first.descriptor
    assert layout.resolve("2") == layout.resolve("latest") == second.descriptor
    assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_a_whole_name_is_found_as_it_is_written_or_by_its_tag(tmp_path: Path):
    image = small()
    leave(Layout(tmp_path), image, "registry.example/team/x:1.4", "battery-alert:2")
    layout = Layout(tmp_path)
    for name in ("registry.example/team/x:1.4", "1.4", "battery-alert:2", "docker.io/library/battery-alert:2"):
        assert layout.resolve(name) == image.descriptor, name
    assert layout.resolve("other.example/team/x:1.4") is None


def test_processes_that_leave_images_in_one_layout_at_once_all_find_theirs_there(tmp_path: Path):
    leave(Layout(tmp_path), small(), "1")
    program = """if True:
        import sys
        from pathlib import Path
        from fleetfn_builder.layouts import Layout
        for number in range(20):
            layout = Layout(Path(sys.argv[1]))
            top = layout.index().manifests[0]
            layout.tag(layout.read(top), top.media_type, [f"{sys.argv[2]}-{number}"])
    """
    several = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in "abc"]
    assert [one.wait(180) for one in several] == [0, 0, 0]
    assert len(Layout(tmp_path).index().manifests) == 1 + 3 * 20


def test_a_layout_that_is_replaced_is_whole_at_every_moment(tmp_path: Path):
    """Its catalogue comes last and at once: whoever reads meanwhile sees the old one or the new one."""
    leave(Layout(tmp_path), small("first"), "1")
    before = (tmp_path / "index.json").read_bytes()
    with Layout(tmp_path) as layout:
        put_all(layout, small("second").parts)
        assert (tmp_path / "index.json").read_bytes() == before
        layout.tag(small("second").manifest_bytes, images.MANIFEST, ["1"])
    assert not [name for name in names(tmp_path) if "/." in f"/{name}"]


def test_equal_images_are_equal_tarballs(tmp_path: Path):
    image = small("one", "two")
    for name, parts in (("a.tar", image.parts), ("b.tar", image.parts[::-1])):
        with Archive(tmp_path / name) as archive:
            for part in parts:
                archive.put(part.descriptor, part.open)
            archive.tag(image.manifest_bytes, images.MANIFEST, ["registry.example/x:1", "registry.example/x:2"])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert names(tmp_path) == {"a.tar", "b.tar"}


def test_a_tarball_says_what_docker_load_reads(tmp_path: Path):
    image = small("one", "two")
    leave(Archive(tmp_path / "a.tar"), image, "registry.example/team/x:1", "1")
    with tarfile.open(tmp_path / "a.tar") as tar:
        told = json.load(tar.extractfile("manifest.json"))
        members = tar.getnames()
        assert {(each.mtime, each.uid, each.mode) for each in tar} == {(0, 0, 0o644)}
    assert told[0]["RepoTags"] == ["registry.example/team/x:1"]
    assert told[0]["Config"] in members
    assert [name in members for name in told[0]["Layers"]] == [True, True]
    assert members[:3] == ["oci-layout", "index.json", "manifest.json"]


def test_a_tarball_of_several_platforms_has_nothing_for_docker(tmp_path: Path):
    one, other = small("one"), small("other", architecture="arm64")
    with Archive(tmp_path / "a.tar") as archive:
        for each in (one, other):
            put_all(archive, each.parts)
            archive.tag(each.manifest_bytes, images.MANIFEST, [])
        archive.tag(index_of(one, other), images.INDEX, ["1"])
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert "manifest.json" not in tar.getnames()
    with opening.open_image(str(tmp_path / "a.tar"), Access(), Platform("arm64")) as found:
        assert found.descriptor == other.descriptor


def test_a_tarball_that_is_written_again_takes_what_it_has_from_the_old_one(tmp_path: Path):
    image = small("one")
    leave(Archive(tmp_path / "a.tar"), image, "1")
    with Archive(tmp_path / "a.tar") as archive:
        assert archive.has(image.manifest.layers[0])
        archive.tag(image.manifest_bytes, images.MANIFEST, ["2"])
    with Archive(tmp_path / "a.tar") as archive:
        assert archive.resolve("1") is None
        assert archive.resolve("2") == image.descriptor
        with archive.open(image.manifest.layers[0]) as content:
            assert content.read() == image.contents[image.manifest.layers[0].digest]


def test_a_tarball_is_not_written_without_all_that_its_image_names(tmp_path: Path):
    image = small("one")
    archive = Archive(tmp_path / "a.tar")
    with pytest.raises(BuildError, match=image.manifest.layers[0].digest):
        _only_the_manifest(archive, image)
    assert names(tmp_path) == set()


def _only_the_manifest(archive: Archive, image: SmallImage) -> None:
    with archive:
        archive.put(image.manifest.config, lambda: io.BytesIO(image.contents[image.manifest.config.digest]))
        archive.tag(image.manifest_bytes, images.MANIFEST, ["1"])


def docker_save(path: Path, image: SmallImage, *, zipped: bool = False, linked: bool = False) -> None:
    """As older versions of Docker do: `ID/layer.tar`, equal layers as links."""
    layers = [image.contents[each.digest] for each in image.manifest.layers]
    contents = layers if zipped else [gzip.decompress(each) for each in layers]
    config = image.manifest.config.digest.removeprefix("sha256:") + ".json"
    with tarfile.open(path, "w") as tar:
        for number, content in enumerate(contents):
            member = tarfile.TarInfo(f"{number}/layer.tar")
            if linked and number:
                member.type, member.linkname = tarfile.SYMTYPE, "../0/layer.tar"
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        told = [
            {
                "Config": config,
                "RepoTags": ["battery-alert:1"],
                "Layers": [f"{number}/layer.tar" for number in range(len(contents))],
            }
        ]
        for name, content in (
            (config, image.contents[image.manifest.config.digest]),
            ("manifest.json", json.dumps(told).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("zipped", [False, True], ids=["plain layers", "compressed layers"])
def test_what_docker_saves_is_an_image(tmp_path: Path, *, zipped: bool):
    image = small("one", "two")
    docker_save(tmp_path / "saved.tar", image, zipped=zipped)
    with opening.open_image(str(tmp_path / "saved.tar"), Access(), AMD64) as found:
        assert found.config == image.config
        for layer, known in zip(found.manifest.layers, image.manifest.layers, strict=True):
            with found.store.open(layer) as content:
                raw = content.read()
            assert raw == (image.contents[known.digest] if zipped else gzip.decompress(image.contents[known.digest]))
            assert layer.media_type == (images.LAYER if zipped else images.LAYER_PLAIN)
        assert found.store.resolve("battery-alert:1") == found.descriptor


def test_equal_layers_that_docker_saves_as_links_are_found(tmp_path: Path):
    docker_save(tmp_path / "saved.tar", small("one", "one"), linked=True)
    with opening.open_image(str(tmp_path / "saved.tar"), Access(), AMD64) as found:
        first, second = found.manifest.layers
        assert first == second


def tar_of(path: Path, **members: bytes) -> str:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


def compressed(path: Path) -> str:
    path.write_bytes(gzip.compress(Path(tar_of(path)).read_bytes()))
    return str(path)


def text_file(path: Path) -> str:
    path.write_text("hello")
    return str(path)


def empty_layout(path: Path) -> str:
    path.mkdir()
    return f"oci:{path}"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (str, "there is no file"),
        (lambda path: f"oci:{path}", "there is no folder"),
        (empty_layout, "holds no image"),
        (text_file, "is no tarball of an image"),
        (compressed, "it is compressed"),
        (lambda path: tar_of(path, readme=b""), "neither index.json nor manifest.json"),
        (lambda path: tar_of(path, index_json=b"[]"), "index.json in .* is no index"),
        (lambda path: tar_of(path, manifest_json=b"{}"), "manifest.json in .* cannot be read"),
        (
            lambda path: tar_of(path, manifest_json=b'[{"Config": "gone.json", "Layers": []}]'),
            "it lacks 'gone.json'",
        ),
    ],
    ids=["no file", "no folder", "empty", "text", "compressed", "no image", "bad index", "bad manifest", "lacks"],
)
def test_what_cannot_be_opened_says_why(tmp_path: Path, make, told: str):
    with pytest.raises(BuildError, match=told), opening.open_image(make(tmp_path / "x.tar"), Access(), AMD64):
        pass


def test_an_image_for_another_platform_is_refused(tmp_path: Path):
    leave(Layout(tmp_path / "x"), small(architecture="arm64"), "1")
    with (
        pytest.raises(BuildError, match=r"is for linux/arm64, and linux/amd64 is asked for"),
        opening.open_image(f"oci:{tmp_path}/x", Access(), AMD64),
    ):
        pass


def test_a_layout_of_several_images_wants_a_tag_and_names_those_it_has(tmp_path: Path):
    first, second = small("first"), small("second")
    leave(Layout(tmp_path / "x"), first, "1")
    leave(Layout(tmp_path / "x"), second, "2")
    with opening.open_image(f"oci:{tmp_path}/x:2", Access(), AMD64) as found:
        assert found.descriptor == second.descriptor
    with (
        pytest.raises(BuildError, match=r"holds 2 images where one is meant: 1, 2"),
        opening.open_image(f"oci:{tmp_path}/x", Access(), AMD64),
    ):
        pass


def test_a_text_that_names_no_image_is_a_usage_error():
    with pytest.raises(UsageError), opening.open_image("Not An Image", Access(), AMD64):
        pass


@pytest.mark.parametrize("name", ["out", "out.tar"])
def test_a_file_gets_the_whole_names_of_all_tags(tmp_path: Path, name: str):
    image = small()
    tags = [references.parse("registry.example/a/x:1"), references.parse("registry.example/b/x:2")]
    with opening.leave(ToFile(tmp_path / "new" / name), tags, Access()) as stores:
        [(store, versions)] = stores
        put_all(store, image.parts)
        store.tag(image.manifest_bytes, images.MANIFEST, versions)
    text = str(tmp_path / "new" / name)
    with opening.open_image(text if name.endswith(".tar") else f"oci:{text}", Access(), AMD64) as found:
        assert found.descriptor == image.descriptor
        assert found.store.resolve("registry.example/b/x:2") == image.descriptor


def test_a_tarball_with_a_file_of_less_than_no_bytes_is_refused(tmp_path: Path):
    member = tarfile.TarInfo("index.json")
    member.size = -5
    (tmp_path / "image.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with (
        pytest.raises(BuildError, match="no tarball of an image"),
        opening.open_image(str(tmp_path / "image.tar"), Access(), AMD64),
    ):
        pass


@pytest.mark.parametrize("kind", ["layout", "tarball"])
def test_a_config_without_an_end_is_not_read(tmp_path: Path, kind: str):
    huge = images.Descriptor(images.CONFIG, "sha256:" + "0" * 64, images.LARGEST + 1)
    manifest = images.canonical(images.Manifest(config=huge, layers=[]))
    described = images.describe(manifest, images.MANIFEST)
    store: Layout | Archive = Layout(tmp_path / "x")
    with Layout(tmp_path / "x") as layout:
        layout.tag(manifest, images.MANIFEST, ["1"])
    with (tmp_path / "x" / "blobs" / "sha256" / ("0" * 64)).open("wb") as file:
        file.truncate(huge.size)
    if kind == "tarball":
        with tarfile.open(tmp_path / "x.tar", "w") as tar:
            tar.add(tmp_path / "x", ".")
        store = Archive(tmp_path / "x.tar")
    assert store.read(described) == manifest
    with pytest.raises(BuildError, match="too many for a"):
        store.read(huge)


def test_what_killed_builds_have_left_beside_a_tarball_goes_with_the_next(tmp_path: Path):
    left, held, new, other = (tmp_path / f".x.tar.{name}" for name in ("fleetfn-1", "fleetfn-2", "fleetfn-3", "d"))
    half = tmp_path / f".x.tar.{'0a' * 8}"
    half.write_bytes(b"half")
    os.utime(half, (1, 1))
    for each in (left, held, new, other):
        (each / "sha256").mkdir(parents=True)
        if each != new:
            os.utime(each, (1, 1))
    opened = os.open(held, os.O_RDONLY)
    fcntl.flock(opened, fcntl.LOCK_EX)
    leave(Archive(tmp_path / "x.tar"), small(), "1")
    os.close(opened)
    assert sorted(tmp_path.iterdir()) == sorted([held, new, other, tmp_path / "x.tar"])


def test_what_killed_builds_have_left_in_a_layout_goes_with_the_next(tmp_path: Path):
    leave(Layout(tmp_path), small(), "1")
    blobs = tmp_path / "blobs" / "sha256"
    names = (f".{'0a' * 32}.{number * 8}" for number in ("01", "02", "03"))
    left, held, new = (blobs / name for name in names)
    index, other = tmp_path / f".index.json.{'0a' * 8}", blobs / ".of-another"
    for each in (left, held, new, index, other):
        each.write_bytes(b"half")
        if each != new:
            os.utime(each, (1, 1))
    with held.open() as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        leave(Layout(tmp_path), small(), "1")
    assert sorted([*tmp_path.glob(".*"), *blobs.glob(".*")]) == sorted([held, new, other])
    assert Layout(tmp_path).resolve("1") is not None


def test_what_is_written_is_held_meanwhile(tmp_path: Path):
    with written(tmp_path / "x") as into:
        into.write(b"half")
        [aside] = tmp_path.iterdir()
        os.utime(aside, (1, 1))
        remove_left([aside])
        assert aside.exists()
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
