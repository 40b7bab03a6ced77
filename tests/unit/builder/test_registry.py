"""Registries that fail, redirect, ask for tokens: a small one in this process does as it is told."""

import gzip
import io
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_registry import Failure, FakeRegistry, serving
from fleetfn_builder import images, opening, references
from fleetfn_builder.builder import Access, BuildError, Platform, ToRegistry
from fleetfn_builder.delivering import Part, put_all
from fleetfn_builder.registry import Registry
from fleetfn_builder.registry_http import Patience
from small_images import SmallImage, small

AMD64 = Platform("amd64")


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with serving() as found:
        yield found


class Waits:
    """What was slept; nobody waits."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.patience = Patience(attempts=4, sleep=self.seconds.append)


@pytest.fixture
def waits() -> Waits:
    return Waits()


def at(fake: FakeRegistry, name: str = "team/x") -> references.Reference:
    return references.parse(f"{fake.address}/{name}:1")


def push(registry: Registry, image: SmallImage) -> None:
    with registry:
        put_all(registry, image.parts)
        registry.tag(image.manifest_bytes, images.MANIFEST, ["1"])


def refusal(registry: Registry, image: SmallImage | None = None) -> BuildError:
    with pytest.raises(BuildError) as caught:
        push(registry, image or small())
    return caught.value


# What passes


@pytest.mark.parametrize("status", [0, 429, 500, 502, 503, 504], ids=lambda status: str(status or "no answer"))
@pytest.mark.parametrize("of", ["HEAD .*blobs", "POST", "PUT .*uploads", "PUT .*manifests"])
def test_what_passes_is_waited_for(fake: FakeRegistry, waits: Waits, of: str, status: int):
    fake.failures.append(Failure(of, status, times=2))
    image = small()
    with Registry(at(fake), Access(), waits.patience) as registry:
        for part in image.parts:
            registry.put(part.descriptor, part.open)
        assert registry.tag(image.manifest_bytes, images.MANIFEST, ["1"]) == image.descriptor
        assert registry.resolve("1") == image.descriptor
    assert len(waits.seconds) == 2
    assert waits.seconds[0] < waits.seconds[1]


def test_what_does_not_pass_ends_after_a_few_attempts(fake: FakeRegistry, waits: Waits):
    fake.failures.append(Failure("POST", 503, times=1000))
    error = refusal(Registry(at(fake), Access(), waits.patience))
    assert error.message == f"{fake.address} answers 503 Service Unavailable, to push to {fake.address}/team/x"
    assert "not sent twice" in error.hint
    assert len(waits.seconds) <= 2 * 3  # two parts, four attempts each
    assert not fake.manifests


def test_a_registry_that_says_when_is_asked_then(fake: FakeRegistry, waits: Waits):
    fake.failures.append(Failure("PUT .*manifests", 429, {"Retry-After": "7"}, times=1))
    push(Registry(at(fake), Access(), waits.patience), small())
    assert waits.seconds == [7]


def test_nobody_waits_for_an_hour(fake: FakeRegistry, waits: Waits):
    fake.failures.append(Failure("PUT .*manifests", 429, {"Retry-After": "3600"}, times=1))
    error = refusal(Registry(at(fake), Access(), waits.patience))
    assert error.hint.startswith("It asks to wait for 3600 s")
    assert waits.seconds == []


def test_a_push_that_failed_goes_on_from_what_is_there(fake: FakeRegistry, waits: Waits):
    image = small("one", "two", "three")
    fake.failures.append(Failure("PUT .*manifests", 500, times=1000))
    refusal(Registry(at(fake), Access(), waits.patience), image)
    fake.failures.clear()
    fake.asked.clear()
    push(Registry(at(fake), Access(), waits.patience), image)
    assert fake.paths("POST") == []
    assert fake.manifests["team/x", "1"][1] == image.manifest_bytes


def test_progress_takes_back_what_must_be_sent_again(fake: FakeRegistry, waits: Waits):
    image = small("x" * 10_000)
    fake.failures.append(Failure("PUT .*uploads", 502, times=1))
    told: list[int] = []
    with Registry(at(fake), Access(), waits.patience) as registry:
        registry.put(image.manifest.layers[0], image.parts[0].open, None, told.append)
    assert sum(told) == image.manifest.layers[0].size


def test_a_registry_that_is_down_is_told_with_its_name():
    with serving() as gone:
        pass
    error = refusal(Registry(at(gone), Access(), Patience(attempts=2, sleep=lambda _: None)))
    assert error.message == f"{gone.address} refuses connections"
    assert "Is the registry up" in error.hint


def test_a_name_that_nobody_knows_is_not_asked_for_twice(waits: Waits):
    error = refusal(Registry(references.parse("registry.invalid/x"), Access(), waits.patience))
    assert error.message.startswith("the name of registry.invalid is not known")
    assert error.away
    assert not error.again
    assert waits.seconds == []


# Reading


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_download_that_breaks_goes_on_where_it_was(fake: FakeRegistry, waits: Waits, *, ranges: bool):
    content = bytes(range(256)) * 4000
    layer = images.describe(content, images.LAYER)
    fake.blobs["team/x"] = {layer.digest: content}
    fake.cuts, fake.cut_ranges = 2, ranges
    told: list[int] = []
    with Registry(at(fake), Access(), waits.patience) as registry, registry.open(layer, told.append) as found:
        assert found.read() == content
    assert sum(told) == len(content)


def test_a_download_that_breaks_for_ever_ends(fake: FakeRegistry, waits: Waits):
    content = b"x" * 100_000
    layer = images.describe(content, images.LAYER)
    fake.blobs["team/x"] = {layer.digest: content}
    fake.cuts = 1000
    with (
        Registry(at(fake), Access(), waits.patience) as registry,
        registry.open(layer) as found,
        pytest.raises(BuildError, match=f"the connection to {fake.address} broke"),
    ):
        found.read()
    assert fake.cuts > 990


def test_other_bytes_than_named_are_told_with_both_digests(fake: FakeRegistry):
    layer = images.describe(b"right", images.LAYER)
    fake.blobs["team/x"] = {layer.digest: b"wrong"}
    with (
        Registry(at(fake), Access()) as registry,
        registry.open(layer) as found,
        pytest.raises(BuildError, match=f"{images.digest_of(b'wrong')}, and should be {layer.digest}"),
    ):
        found.read()


def test_a_blob_elsewhere_is_fetched_without_showing_a_token_there(fake: FakeRegistry):
    image = small()
    with serving() as elsewhere:
        fake.blobs["team/x"] = elsewhere.blobs["any"] = dict(image.contents)
        fake.manifests["team/x", "1"] = fake.manifests["team/x", image.descriptor.digest] = (
            images.MANIFEST,
            image.manifest_bytes,
        )
        fake.users, fake.blobs_at = {"fn": "secret"}, f"http://{elsewhere.address}"
        access = Access("fn", "secret", fake.address)
        with opening.open_image(str(at(fake)), access, AMD64) as found:
            assert found.config == image.config
    assert len(elsewhere.asked) == 1
    assert "authorization" not in elsewhere.asked[0].headers
    assert all("authorization" in each.headers for each in fake.asked if "/blobs/" in each.path)


def test_a_mirror_is_asked_first_and_the_registry_for_what_it_lacks(fake: FakeRegistry):
    image = small()
    fake.blobs["team/x"] = dict(image.contents)
    fake.manifests["team/x", "1"] = fake.manifests["team/x", image.descriptor.digest] = (
        images.MANIFEST,
        image.manifest_bytes,
    )
    with serving() as mirror:
        config = image.manifest.config.digest
        mirror.blobs["copies/team/x"] = {config: image.contents[config]}
        access = Access(mirrors={fake.address: f"{mirror.address}/copies"})
        with opening.open_image(str(at(fake)), access, AMD64) as found:
            assert found.descriptor == image.descriptor
        assert mirror.paths("GET")[1:] == [
            f"/v2/copies/team/x/manifests/{image.descriptor.digest}",
            f"/v2/copies/team/x/blobs/{config}",
        ]
    assert not [path for path in fake.paths("GET") if "blobs" in path]


def test_a_mirror_that_is_down_hinders_nobody(fake: FakeRegistry):
    image = small()
    push(Registry(at(fake), Access()), image)
    with serving() as gone:
        pass
    with opening.open_image(str(at(fake)), Access(mirrors={fake.address: gone.address}), AMD64) as found:
        assert found.descriptor == image.descriptor


def test_mirrors_have_no_say_in_what_is_pushed(fake: FakeRegistry):
    image = small()
    with serving() as mirror:
        push(Registry(at(mirror), Access()), image)
        access = Access(mirrors={fake.address: mirror.address})
        with opening.leave(ToRegistry(), [at(fake)], access) as [(store, versions)]:
            assert store.resolve("1") is None
            put_all(store, image.parts)
            store.tag(image.manifest_bytes, images.MANIFEST, versions)
    assert fake.manifests["team/x", "1"][1] == image.manifest_bytes


def test_an_old_docker_manifest_is_refused_by_its_kind(fake: FakeRegistry):
    fake.manifests["team/x", "1"] = ("application/vnd.docker.distribution.manifest.v1+prettyjws", b"{}")
    with Registry(at(fake), Access()) as registry, pytest.raises(BuildError, match=r"v1\+prettyjws"):
        registry.resolve("1")


def test_an_image_that_is_not_there_is_told_by_its_name(fake: FakeRegistry):
    with (
        pytest.raises(BuildError, match=f"there is no image {fake.address}/team/x:1"),
        opening.open_image(str(at(fake)), Access(), AMD64),
    ):
        pass


def give_another(fake: FakeRegistry, asked: SmallImage, given: SmallImage) -> None:
    fake.manifests["team/x", asked.descriptor.digest] = (images.MANIFEST, given.manifest_bytes)


@pytest.mark.parametrize("tells", [True, False], ids=["its digest told", "no digest told"])
def test_another_image_than_the_digest_names_is_not_taken(fake: FakeRegistry, *, tells: bool):
    wanted, other = small("wanted"), small("other")
    push(Registry(at(fake), Access()), other)
    give_another(fake, wanted, other)
    fake.tells_digests = tells
    name = f"{fake.address}/team/x@{wanted.descriptor.digest}"
    with (
        pytest.raises(BuildError, match=f"asked for {wanted.descriptor.digest}, and gives {other.descriptor.digest}"),
        opening.open_image(name, Access(), AMD64),
    ):
        pass


@pytest.mark.parametrize("of", ["GET /v2/$", "GET .*manifests", "GET /token"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
def test_an_answer_without_an_end_is_not_read(
    fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch, of: str, *, packed: bool
):
    monkeypatch.setattr("fleetfn_builder.registry_errors.LARGEST", 1 << 20)
    push(Registry(at(fake), Access()), small())
    fake.users, fake.tells_digests = {"fn": "secret"}, False
    body = b" " * (2 << 20)
    heads = {"Content-Encoding": "gzip"} if packed else {}
    fake.failures.append(Failure(of, 200, heads, gzip.compress(body) if packed else body, times=99))
    with (
        Registry(at(fake), Access("fn", "secret", fake.address)) as registry,
        pytest.raises(BuildError, match="makes no sense: more than 1 MiB"),
    ):
        registry.resolve("1")


# Pushing


def test_layers_of_a_neighbour_are_not_sent(fake: FakeRegistry):
    image = small("base")
    push(Registry(at(fake, "library/base"), Access()), image)
    fake.asked.clear()
    with Registry(at(fake), Access()) as registry:
        registry.put(image.manifest.layers[0], pytest.fail, at(fake, "library/base"))
    assert fake.paths("PUT") == []
    assert image.manifest.layers[0].digest in fake.blobs["team/x"]


def test_a_layer_that_the_neighbour_lacks_is_sent(fake: FakeRegistry):
    image = small("base")
    with Registry(at(fake), Access()) as registry:
        registry.put(image.manifest.layers[0], image.parts[0].open, at(fake, "library/base"))
    assert image.manifest.layers[0].digest in fake.blobs["team/x"]
    assert len(fake.paths("DELETE")) == 1  # the upload that was begun in place of it


@pytest.mark.parametrize("status", [401, 403, 404])
def test_where_mounting_is_refused_the_layer_is_sent(fake: FakeRegistry, status: int):
    image = small("base")
    fake.failures.append(Failure("POST .*mount=", status, times=2))
    with Registry(at(fake), Access()) as registry:
        registry.put(image.manifest.layers[0], image.parts[0].open, at(fake, "library/base"))
    assert image.manifest.layers[0].digest in fake.blobs["team/x"]


def test_parts_are_sent_side_by_side_and_the_first_failure_is_the_one_that_is_told(fake: FakeRegistry):
    barrier = threading.Barrier(4, timeout=60)
    image = small("1", "2", "3", "4")

    def opened(content: bytes) -> io.BytesIO:
        barrier.wait()
        return io.BytesIO(content)

    parts = [
        Part(layer, lambda content=image.contents[layer.digest]: opened(content)) for layer in image.manifest.layers
    ]
    with Registry(at(fake), Access()) as registry:
        put_all(registry, parts)
        wrong = Part(images.describe(b"right", images.LAYER), lambda: io.BytesIO(b"wrong"))
        others = small(*(str(number) * 1000 for number in range(20))).parts
        with pytest.raises(BuildError, match="should be"):
            put_all(registry, [wrong, *others])


def test_a_registry_that_falls_silent_is_left_at_once(fake: FakeRegistry):
    """By Ctrl-C, which the main thread learns of, or by the failure of another part."""
    image, other = small("silent"), small("other")
    fake.silent = f"HEAD .*{image.parts[0].descriptor.digest}"

    def interrupted() -> io.BytesIO:
        assert fake.is_silent.wait(60)
        raise KeyboardInterrupt

    begun = time.monotonic()
    with Registry(at(fake), Access()) as registry, pytest.raises(KeyboardInterrupt):
        put_all(registry, [image.parts[0], Part(other.parts[0].descriptor, interrupted)])
    assert time.monotonic() - begun < 60  # half of what an answer is waited for


# Who we are


def test_a_token_is_asked_for_with_every_scope_and_kept(fake: FakeRegistry):
    fake.users = {"fn": "secret"}
    image = small("base")
    access = Access("fn", "secret", fake.address)
    push(Registry(at(fake, "library/base"), access), image)
    fake.asked.clear()
    with Registry(at(fake), access) as registry:
        for part in image.parts:
            registry.put(part.descriptor, part.open, at(fake, "library/base"))
        registry.tag(image.manifest_bytes, images.MANIFEST, ["1", "2"])
    tokens = [each for each in fake.asked if each.path.startswith("/token")]
    assert len(tokens) == 2  # to push; to push and read the neighbour
    assert tokens[1].path.count("scope=") == 2
    assert all(each.headers["authorization"].startswith("Basic ") for each in tokens)


def test_a_token_that_holds_no_longer_is_asked_for_again(fake: FakeRegistry):
    fake.users = {"fn": "secret"}
    image = small()
    with Registry(at(fake), Access("fn", "secret", fake.address)) as registry:
        put_all(registry, image.parts)
        fake.valid.clear()
        registry.tag(image.manifest_bytes, images.MANIFEST, ["1"])
    assert ("team/x", "1") in fake.manifests


def test_what_everybody_may_read_needs_no_password(fake: FakeRegistry):
    image = small()
    push(Registry(at(fake), Access()), image)
    fake.users, fake.readable = {"fn": "secret"}, frozenset({"team/x"})
    with opening.open_image(str(at(fake)), Access(), AMD64) as found:
        assert found.config == image.config
    error = refusal(Registry(at(fake), Access()), small("other"))
    assert error.message == f"{fake.address} wants credentials to push to {fake.address}/team/x, and none are known"
    assert f"docker login {fake.address}" in error.hint


def test_a_wrong_password_is_told_with_the_user_and_without_the_password(fake: FakeRegistry):
    fake.users = {"fn": "secret"}
    error = refusal(Registry(at(fake), Access("fn", "hunter2", fake.address)))
    assert error.message.startswith(f"{fake.address} does not accept user 'fn'")
    assert "hunter2" not in f"{error.message} {error.hint} {Access('fn', 'hunter2')}"


def test_a_right_that_lacks_is_no_wrong_password(fake: FakeRegistry):
    fake.users = {"fn": "secret"}
    fake.failures.append(Failure("POST", 403, body=b'{"errors":[{"code":"DENIED","message":"not yours"}]}', times=1000))
    error = refusal(Registry(at(fake), Access("fn", "secret", fake.address)))
    assert f"does not let user 'fn' push to {fake.address}/team/x (DENIED not yours)" in error.message


def test_a_password_is_told_to_its_host_alone(fake: FakeRegistry):
    fake.users = {"fn": "secret"}
    refusal(Registry(at(fake), Access("fn", "secret", "harbor.example")))
    assert not any("authorization" in each.headers for each in fake.asked if each.path.startswith("/token"))


def test_a_project_that_is_not_made_yet_is_told(fake: FakeRegistry):
    fake.failures.append(
        Failure("POST", 404, body=b'{"errors":[{"code":"NAME_UNKNOWN","message":"project team not found"}]}', times=9)
    )
    error = refusal(Registry(at(fake), Access()))
    assert "NAME_UNKNOWN project team not found" in error.message
    assert "project" in error.hint


def test_a_proxy_that_takes_nothing_so_large_is_told(fake: FakeRegistry):
    fake.failures.append(Failure("PUT .*uploads", 413, times=9))
    assert "takes nothing so large" in refusal(Registry(at(fake), Access())).message


# Secure or not


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Signed by itself, for 0.0.0.0."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=tests"
    command += f" -addext subjectAltName=IP:0.0.0.0 -keyout {path} -out {path}.crt"
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
def secure(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def test_plain_http_is_spoken_to_hosts_that_are_named_so_alone():
    with serving(host="0.0.0.0") as fake:  # noqa: S104 - an address of this machine that is no loopback
        error = refusal(Registry(at(fake), Access()))
        assert error.message == f"{fake.address} does not speak TLS"
        assert f"name {fake.address} insecure" in error.hint
        assert fake.asked == []
        push(Registry(at(fake), Access(insecure=frozenset({fake.address}))), small())
        assert ("team/x", "1") in fake.manifests


def test_a_certificate_that_nobody_signed_is_taken_from_hosts_that_are_named_so_alone(secure: ssl.SSLContext):
    with serving(host="0.0.0.0", tls=secure) as fake:  # noqa: S104
        error = refusal(Registry(at(fake), Access()))
        assert error.message.startswith(f"the certificate of {fake.address} is not trusted: self")
        assert f"certs.d/{fake.address}/ca.crt" in error.hint
        assert fake.asked == []
        push(Registry(at(fake), Access(insecure=frozenset({fake.address}))), small())
        assert ("team/x", "1") in fake.manifests


def test_an_authority_that_docker_knows_for_the_host_is_trusted(
    secure: ssl.SSLContext, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fleetfn_builder.registry_http.CERTIFICATES", tmp_path)
    with serving(host="0.0.0.0", tls=secure) as fake:  # noqa: S104
        (tmp_path / fake.address).mkdir()
        (tmp_path / fake.address / "ca.crt").write_bytes(Path(f"{certificate}.crt").read_bytes())
        push(Registry(at(fake), Access()), small())
        assert ("team/x", "1") in fake.manifests


def test_a_password_is_not_sent_by_plain_http_to_a_host_that_was_not_named(secure: ssl.SSLContext):
    with serving(host="0.0.0.0") as listener, serving() as fake:  # noqa: S104
        listener.users = {"fn": "secret"}
        fake.users, fake.realm = {"fn": "secret"}, f"http://{listener.address}/token"
        error = refusal(Registry(at(fake), Access("fn", "secret", fake.address)))
        assert f"wants credentials to be sent to {listener.address}, by plain HTTP" in error.message
        assert listener.asked == []


def test_an_upload_is_not_sent_by_plain_http_to_a_host_that_was_not_named():
    with serving(host="0.0.0.0") as listener, serving() as fake:  # noqa: S104
        fake.failures.append(Failure("POST", 202, {"Location": f"http://{listener.address}/up"}, times=9))
        error = refusal(Registry(at(fake), Access()))
        assert "by plain HTTP" in error.message
        assert listener.asked == []
