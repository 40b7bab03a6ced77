"""The direct builder beyond what all builders promise: its cache, its bases, what it keeps."""

import gzip
import io
import threading
from http.server import BaseHTTPRequestHandler

import base_images
import msgspec
import pytest
import seen_images
import tiny_wheels
from fleetfn_builder import images, references
from fleetfn_builder.archives import Archive
from fleetfn_builder.assembly import anatomy
from fleetfn_builder.bases import Bases
from fleetfn_builder.builder import Access, BuildError, Platform, Request, ToEngine, ToFile, ToRegistry
from fleetfn_builder.direct import DirectBuilder
from fleetfn_builder.keeping import Keeping
from fleetfn_builder.layouts import Layout
from fleetfn_builder.registry import Registry
from fleetfn_spec.load import load_function
from registry_server import fresh_repository
from threaded_server import ThreadedServer

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""
TAG = references.parse("registry.example/team/hello:1")


class Place:
    """A function, a base, wheels, a cache, a layout to build into."""

    def __init__(self, folder):
        self.source = folder / "source"
        self.source.mkdir()
        (self.source / "function.yaml").write_text(FUNCTION)
        self.edit("def hello(name: str) -> str:\n    return name\n")
        self.base = folder / "base"
        base_images.leave(Layout(self.base))
        self.wheels = folder / "wheels"
        tiny_wheels.wheel(self.wheels, "tiny")
        files = {"fleetfn_runtime/__init__.py": ""}
        self.wheel = tiny_wheels.wheel(folder, "fleetfn", "9.9", files=files, requires=["tiny"])
        self.cache = folder / "cache"
        self.out = folder / "out"
        self.lines = []

    def edit(self, code):
        (self.source / "handler.py").write_text(code)

    def require(self, text):
        (self.source / "requirements.txt").write_text(text)

    def build(self, *, platforms=("amd64",), progress=lambda _: None, **more):
        self.lines = lines = []

        def said(line):
            lines.append(line)
            progress(line)

        request = Request(
            **{
                "folder": self.source,
                "function": load_function(self.source),
                "tags": (TAG,),
                "destination": ToFile(self.out),
                "platforms": tuple(map(Platform, platforms)),
                "base": f"oci:{self.base}",
                "env": {"UV_FIND_LINKS": str(self.wheels), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"},
                "wheel": self.wheel,
            }
            | more
        )
        return DirectBuilder(self.cache).build(request, said)

    def see(self, architecture="amd64"):
        layout = Layout(self.out)
        return seen_images.look(layout, layout.resolve(str(TAG)), architecture)

    def said(self, word):
        return any(word in line for line in self.lines)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def digests(built):
    return {layer.name: layer.digest for layer in built.layers}


def test_dependencies_and_runtime_lie_where_the_anatomy_says_with_bytecode(place):
    place.build()
    files = place.see().files()
    site = f"{anatomy.DEPENDENCIES}/lib/python3.11/site-packages"
    assert files[f"{site}/tiny/__init__.py"] == b"VERSION = '1.0'\n"
    assert files[anatomy.PYTHON] == "/usr/bin/python3.11"
    compiled = {path.rpartition("/")[0] for path in files if path.endswith(".cpython-311.pyc")}
    assert {f"{site}/tiny/__pycache__", f"{anatomy.RUNTIME}/fleetfn_runtime/__pycache__"} <= compiled
    assert f"{anatomy.CODE}/__pycache__" in compiled


def test_the_bill_of_materials_lists_what_is_installed_the_base_included(place):
    built = place.build()
    for name in (b"pkg:pypi/tiny@1.0", b"pkg:pypi/fleetfn@9.9", b"pkg:deb/debian/libc6@2.36-9", b'"container"'):
        assert name in built.sbom


def test_the_bill_of_a_base_with_many_packages(place):
    status = "".join(f"Package: p{number}\nVersion: {number * 7919}\n\n" for number in range(2000))
    base_images.leave(Layout(place.base), base_images.FILES | {"var/lib/dpkg/status": status.encode()})
    built = place.build()
    assert built.sbom == place.see().files()[anatomy.SBOM]
    assert b"pkg:deb/debian/p1999@15830081" in built.sbom


def test_a_base_whose_packages_cannot_be_read_is_warned_of(place):
    place.build()
    assert not place.said("warning")
    base_images.leave(Layout(place.base), base_images.FILES | {"var/lib/rpm/rpmdb.sqlite": b"SQLite"})
    place.build()
    assert place.said("warning: the bill of materials lacks the base's rpm packages")


def test_the_bases_own_environment_is_kept_below_ours(place):
    base_images.leave(Layout(place.base), env=["LANG=C.UTF-8", "PYTHONPATH=/elsewhere"], labels={"team": "x"})
    place.build()
    process = place.see().config.config
    assert {"LANG=C.UTF-8", f"PYTHONPATH={anatomy.RUNTIME}"} <= set(process.env)
    assert "PYTHONPATH=/elsewhere" not in process.env
    assert process.labels["team"] == "x"


def test_another_base_is_noticed_and_dependencies_stay(place):
    first = place.build()
    base_images.leave(Layout(place.base), base_images.FILES | {"etc/more": b"1"})
    second = place.build()
    changed = {name for name, digest in digests(second).items() if digests(first)[name] != digest}
    assert changed == {"base", "sbom"}


def test_requirements_that_are_not_pinned_stay_as_they_were_until_a_fresh_build(place):
    place.require("tiny\n")
    first = place.build()
    tiny_wheels.wheel(place.wheels, "tiny", "2.0")
    place.edit("def hello(name: str) -> str:\n    return name + name\n")
    second = place.build()
    assert digests(second)["dependencies"] == digests(first)["dependencies"]
    assert place.said("a fresh build resolves those that are not pinned anew")
    third = place.build(fresh=True)
    assert digests(third)["dependencies"] != digests(first)["dependencies"]
    assert b"pkg:pypi/tiny@2.0" in third.sbom


def test_what_was_pinned_is_not_spoken_of(place):
    place.require("tiny==1.0\n")
    place.build()
    place.edit("def hello(name: str) -> str:\n    return name + name\n")
    place.build()
    assert not place.said("fresh")


def test_another_function_with_the_same_needs_shares_all_but_code_and_bill(place):
    first = place.build()
    (place.source / "function.yaml").write_text(FUNCTION.replace("name: hello}", "name: other}"))
    second = place.build()
    changed = {name for name, digest in digests(second).items() if digests(first)[name] != digest}
    assert changed == {"code", "sbom"}


@pytest.mark.parametrize("kind", ["dependencies", "base", "code"])
def test_a_damaged_blob_of_the_cache_is_made_anew(place, tmp_path, kind):
    built = place.build()
    blob = Keeping(place.cache).blobs.path(digests(built)[kind])
    blob.write_bytes(b"\0" * blob.stat().st_size)
    place.out = tmp_path / "second"
    again = place.build()
    assert again.digest == built.digest
    assert place.said("damaged")
    assert place.see().digest == built.digest


def test_a_damaged_layer_that_a_bill_is_read_off_is_made_anew(place):
    built = place.build()
    blob = Keeping(place.cache).blobs.path(digests(built)["dependencies"])
    blob.write_bytes(b"\0" * blob.stat().st_size)
    (place.source / "function.yaml").write_text(FUNCTION.replace("name: hello}", "name: other}"))
    again = place.build()
    assert digests(again)["dependencies"] == digests(built)["dependencies"]
    assert b"pkg:pypi/tiny@1.0" in again.sbom


@pytest.mark.parametrize("kind", ["dependencies", "base", "code", "manifest"])
def test_a_blob_that_is_gone_is_made_anew(place, tmp_path, kind):
    built = place.build()
    known = digests(built) | {"manifest": built.digest}
    Keeping(place.cache).blobs.path(known[kind]).unlink()
    place.out = tmp_path / "second"
    assert place.build().digest == built.digest


def test_damaged_records_are_made_anew(place, tmp_path):
    built = place.build()
    for record in place.cache.glob("*/*.json"):
        record.write_bytes(b"{")
    place.out = tmp_path / "second"
    assert place.build().digest == built.digest


def test_two_builds_at_once_make_one_image(place, tmp_path):
    found, failed = [], []

    def build(number):
        try:
            found.append(place.build(destination=ToFile(tmp_path / f"out-{number}")).digest)
        except BaseException as error:  # told to the test
            failed.append(error)
            raise

    threads = [threading.Thread(target=build, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(found) == 4
    assert len(set(found)) == 1


def test_layers_that_an_engine_saved_are_compressed_once(place, tmp_path):
    plain = base_images.tarred(base_images.FILES)
    layer = images.describe(plain, images.LAYER_PLAIN)
    config = images.canonical(
        images.Config(architecture="amd64", os="linux", rootfs=images.RootFs(diff_ids=[layer.digest]))
    )
    with Archive(tmp_path / "base.tar") as archive:
        archive.put(layer, lambda: io.BytesIO(plain))
        archive.put(images.describe(config, images.CONFIG), lambda: io.BytesIO(config))
        manifest = images.Manifest(config=images.describe(config, images.CONFIG), layers=[layer])
        archive.tag(images.canonical(manifest), images.MANIFEST, ["base:1"])
    place.build(base=str(tmp_path / "base.tar"))
    assert place.said("compressing")
    seen = place.see()
    assert seen.manifest.layers[0].media_type == images.LAYER
    assert seen.manifest.layers[0].size < len(plain)
    with Layout(place.out).open(seen.manifest.layers[0]) as blob:
        assert gzip.decompress(blob.read()) == plain
    place.edit("def hello() -> str:\n    return ''\n")
    place.build(base=str(tmp_path / "base.tar"))
    assert not place.said("compressing")


def test_a_base_without_python_is_named(place):
    base_images.leave(Layout(place.base), {"etc/passwd": b"root"})
    with pytest.raises(BuildError, match=rf"the base image oci:{place.base} has no Python"):
        place.build()


def test_a_base_of_another_architecture_is_refused_with_both(place):
    with pytest.raises(BuildError, match="linux/amd64, and linux/arm64 is asked for"):
        place.build(platforms=["arm64"])


def test_a_base_that_is_not_there_is_named(place, tmp_path):
    with pytest.raises(BuildError, match="nowhere"):
        place.build(base=f"oci:{tmp_path / 'nowhere'}")


@pytest.mark.registry
def test_a_base_in_a_registry_is_asked_for_once_a_day_and_not_sent_again(place, registry):
    named = references.parse(f"{registry}/{fresh_repository()}:slim")
    with Registry(named, Access()) as store:
        base_images.leave(store, version="slim")
    tag = references.parse(f"{registry}/{fresh_repository()}:1")
    asked = {"base": str(named), "tags": (tag,), "destination": ToRegistry()}
    first = place.build(**asked)
    with Registry(tag, Access()) as store:
        labels = seen_images.look(store, store.resolve("1")).config.labels
    assert labels["org.opencontainers.image.base.name"] == str(named)
    with Registry(named, Access()) as store:
        base_images.leave(store, base_images.FILES | {"etc/more": b"1"}, version="slim")
    second = place.build(**asked)
    assert second.unchanged
    third = place.build(**asked, fresh=True)
    assert digests(third)["base"] != digests(first)["base"]


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(self.server.status)
        self.send_header("Retry-After", "3600")  # longer than a build waits
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *_):
        """Silent."""


@pytest.fixture
def refusing_registry():
    with ThreadedServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def old_base(place, refusing_registry):
    """By a tag of a registry, kept, and asked for long ago."""
    Bases(Keeping(place.cache), Access(), lambda _: None, fresh=False).find(f"oci:{place.base}", Platform("amd64"))
    (known,) = (place.cache / "bases").iterdir()
    named = references.parse(f"127.0.0.1:{refusing_registry.server_port}/python:3")
    record = msgspec.json.decode(known.read_bytes()) | {"at": 1_700_000_000}
    Keeping(place.cache).write("bases", f"2 {named} linux/amd64", record)
    return str(named)


def test_a_base_that_cannot_be_had_today_stays_what_it_was(place, old_base, refusing_registry):
    refusing_registry.status = 503
    place.build(base=old_base)
    assert place.said(f"warning: the base {old_base} is taken as it was on 2023-11-1")
    with pytest.raises(BuildError, match="503"):
        place.build(base=old_base, fresh=True)


@pytest.mark.parametrize(
    ("status", "words"), [(404, "there is no image"), (401, "wants credentials"), (403, "does not let everybody")]
)
def test_a_base_that_is_denied_or_gone_is_not_taken_as_it_was(place, old_base, refusing_registry, status, words):
    refusing_registry.status = status
    with pytest.raises(BuildError, match=words):
        place.build(base=old_base)


def test_the_time_it_is_told_is_the_time_it_says(place, monkeypatch):
    first = place.build()
    assert place.see().config.created == "1970-01-01T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    second = place.build()
    assert place.see().config.created == "2023-11-14T22:13:20Z"
    assert digests(first) == digests(second)
    assert first.digest != second.digest


def test_an_engine_takes_one_platform(place):
    base_images.leave(Layout(place.base), platforms=["amd64", "arm64"])
    with pytest.raises(BuildError, match="one platform"):
        place.build(platforms=["amd64", "arm64"], destination=ToEngine())


def test_a_source_that_changes_while_it_is_read_is_not_mixed(place):
    def progress(line):
        if line.startswith("runtime"):
            place.edit("def hello() -> str:\n    return 'other'\n")

    with pytest.raises(BuildError, match="changed while it was read"):
        place.build(progress=progress)
