"""Names of images survive being written and read; what images are made of has one spelling; no bytes make us crash."""

import json

import msgspec
import pytest
from fleetfn.errors import UsageError
from fleetfn_builder import images, references
from fleetfn_builder.builder import BuildError
from fleetfn_builder.images import Config, Descriptor, Index, Manifest, PlatformOf, Process, RootFs
from fleetfn_builder.references import Reference
from hypothesis import given
from hypothesis import strategies as st

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)
HOSTS = st.sampled_from(["docker.io", "localhost", "localhost:5000", "harbor.example", "[::1]:443", "UPPER"])
PARTS = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", fullmatch=True)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)


@st.composite
def names(draw: st.DrawFn) -> Reference:
    host = draw(HOSTS)
    parts = draw(st.lists(PARTS, min_size=2, max_size=4))
    digest = draw(st.none() | DIGESTS)
    tag = draw(TAGS) if digest is None else draw(st.none() | TAGS)
    return Reference(host, "/".join(parts), tag, digest)


@given(names())
def test_a_name_reads_as_it_was_written(name: Reference):
    assert references.parse(str(name)) == name


@given(st.text() | st.text("abA0.:/@-_[]sha256\n", max_size=40))
def test_any_text_is_a_name_or_a_usage_error(text: str):
    try:
        name = references.parse(text)
    except UsageError:
        return
    assert references.parse(str(name)) == name
    assert "\n" not in str(name)


DESCRIPTORS = st.builds(
    Descriptor,
    media_type=st.sampled_from([images.LAYER, images.CONFIG, images.MANIFEST]),
    digest=DIGESTS,
    size=st.integers(0, 2**53),
    annotations=st.dictionaries(st.text(), st.text(), max_size=3),
    platform=st.none() | st.builds(PlatformOf, st.text(), st.text(), st.text()),
)
LABELS = st.dictionaries(st.text(), st.text(), max_size=4)
MANIFESTS = st.builds(Manifest, config=DESCRIPTORS, layers=st.lists(DESCRIPTORS, max_size=3), annotations=LABELS)
INDEXES = st.builds(Index, manifests=st.lists(DESCRIPTORS, max_size=3))
CONFIGS = st.builds(
    Config,
    architecture=st.text(),
    os=st.text(),
    rootfs=st.builds(RootFs, diff_ids=st.lists(DIGESTS, max_size=3)),
    config=st.builds(Process, user=st.text(), env=st.lists(st.text(), max_size=2), labels=st.none() | LABELS),
)


@given(MANIFESTS | INDEXES | CONFIGS)
def test_what_an_image_is_made_of_reads_as_it_was_written(value: Manifest | Index | Config):
    written = images.canonical(value)
    assert images.decode(written, type(value), "it") == value
    found = json.loads(written)
    assert list(found) == sorted(found)


def test_json_as_deep_as_a_well_is_a_build_error():
    deep = b'{"architecture":"a","os":"b","rootfs":{"diff_ids":[]},"config":{"ExposedPorts":{"1":{"x":' + b"[" * 100_000
    with pytest.raises(BuildError):
        images.decode(deep, Config, "it")
    assert images.recognize(b'{"manifests":' + b"[" * 100_000) is None


@given(LABELS)
def test_the_order_of_labels_does_not_matter(labels: dict[str, str]):
    turned = dict(reversed(labels.items()))
    assert images.canonical(Process(labels=labels)) == images.canonical(Process(labels=turned))


@given(
    st.binary()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda x: (
            st.lists(x) | st.dictionaries(st.sampled_from(["manifests", "layers", "config", "mediaType", "digest"]), x)
        ),
    ).map(msgspec.json.encode)
)
def test_any_bytes_are_an_image_or_a_build_error(content: bytes):
    images.recognize(content)
    for form in (Manifest, Index, Config):
        try:
            images.decode(content, form, "it")
        except BuildError:
            continue
