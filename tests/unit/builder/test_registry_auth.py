"""Credentials of Docker's config, challenges of registries, tokens that end."""

import base64
import json
import os
from pathlib import Path

import pytest
from fleetfn_builder import registry_auth
from fleetfn_builder.builder import Access, BuildError, Request, ToRegistry
from fleetfn_builder.references import parse
from fleetfn_builder.registry_auth import Challenge, Credentials, Passes, may_be_insecure, parse_challenge

HOST = "harbor.example:5000"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes Docker's config."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return lambda **fields: (tmp_path / "config.json").write_text(json.dumps(fields))


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A credential helper that knows HOST alone."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / "docker-credential-tests"
    reply = json.dumps({"ServerURL": HOST, "Username": "fn", "Secret": "s3cret"})
    path.write_text(
        f"#!/bin/sh\nread host\nif [ \"$host\" = {HOST} ]; then echo '{reply}'\n"
        "else echo credentials not found in native keychain; exit 1; fi\n"
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def login(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("key", "host"),
    [
        (HOST, HOST),
        (f"https://{HOST}", HOST),
        (f"https://{HOST}/v1/", HOST),
        ("https://index.docker.io/v1/", "docker.io"),
    ],
)
def test_what_docker_login_left_is_found(config, key: str, host: str):
    config(auths={key: {"auth": login("fn:a:b")}})
    assert registry_auth.find(host, Access()) == Credentials("fn", "a:b")
    assert registry_auth.find("other.example", Access()) is None


@pytest.mark.usefixtures("helper")
@pytest.mark.parametrize("fields", [{"credsStore": "tests"}, {"credHelpers": {HOST: "tests"}}], ids=str)
def test_a_credential_helper_is_asked(config, fields):
    config(**fields)
    assert registry_auth.find(HOST, Access()) == Credentials("fn", "s3cret")
    assert registry_auth.find("other.example", Access()) is None


def test_an_identity_token_is_taken_in_place_of_a_password(config):
    config(auths={HOST: {"identitytoken": "t"}})
    assert registry_auth.find(HOST, Access()) == Credentials("", identity="t")


def test_a_helper_that_is_not_installed_is_told_with_the_host(config):
    config(credHelpers={HOST: "gone"})
    with pytest.raises(BuildError, match=f"credentials for {HOST}: .*docker-credential-gone"):
        registry_auth.find(HOST, Access())


@pytest.mark.parametrize("auth", ["!", login("no colon")])
def test_a_config_that_makes_no_sense_is_told(config, auth: str):
    config(auths={HOST: {"auth": auth}})
    with pytest.raises(BuildError, match="Docker's config"):
        registry_auth.find(HOST, Access())


def test_what_was_given_comes_before_the_config(config):
    config(auths={HOST: {"auth": login("other:x")}})
    assert registry_auth.find(HOST, Access("fn", "p", HOST)) == Credentials("fn", "p")


def test_what_was_given_is_for_the_first_tags_host(config, function_of_a_request):
    config(auths={"docker.io": {"auth": login("other:x")}})
    access = function_of_a_request(Access("fn", "p")).access
    assert registry_auth.find(HOST, access) == Credentials("fn", "p")
    assert registry_auth.find("docker.io", access) == Credentials("other", "x")


@pytest.fixture
def function_of_a_request(tmp_path: Path):
    def request(access: Access) -> Request:
        tags = (parse(f"{HOST}/team/x:1"), parse("docker.io/team/x:1"))
        return Request(tmp_path, None, tags, ToRegistry(), (), access=access)

    return request


def test_nothing_secret_is_shown():
    shown = repr((Access("fn", "hunter2"), Credentials("fn", "hunter2", "hunter2")))
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.8.0.1", True),
        ("[::1]:5000", True),
        ("127.0.0.1.example", False),
        ("localhost.example:80", False),
        ("10.0.0.1:5000", False),
        ("docker.io", False),
    ],
)
def test_this_machine_may_be_spoken_to_without_tls(host: str, *, loopback: bool):
    assert may_be_insecure(host, Access()) is loopback
    assert may_be_insecure(host, Access(insecure=frozenset({host})))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (
            'Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push"',
            Challenge("bearer", "https://auth.example/token", "reg", "repository:a/b:pull,push"),
        ),
        ('bearer Realm="https://x/t", service=reg', Challenge("bearer", "https://x/t", "reg")),
        ('Basic realm="a, b"', Challenge("basic", "a, b")),
        ("Basic", Challenge("basic")),
        ('Negotiate, Bearer realm="https://x/t",error="invalid_token"', Challenge("bearer", "https://x/t")),
        ('Digest realm="x"', Challenge("")),
        ("", Challenge("")),
    ],
    ids=["bearer", "other case", "basic", "bare", "second", "unknown", "none"],
)
def test_challenges_are_read(header: str, found: Challenge):
    assert parse_challenge([header]) == found


def test_tokens_are_kept_until_shortly_before_they_end():
    now, asked = [0.0], []

    def fetch(challenge, scopes, credentials):
        asked.append(tuple(scopes))
        return {"access_token": f"t{len(asked)}", "expires_in": 100}

    passes = Passes(None, fetch, lambda: now[0])
    assert passes.header(["a"]) is None
    passes.learn(Challenge("bearer", "https://x"))
    assert [passes.header(["a"]), passes.header(["a"]), passes.header(["a", "b"])] == [
        "Bearer t1",
        "Bearer t1",
        "Bearer t2",
    ]
    now[0] = 90.0
    assert passes.header(["a"]) == "Bearer t3"
    assert asked == [("a",), ("a", "b"), ("a",)]


def test_a_password_is_given_to_whom_asks_for_one():
    passes = Passes(Credentials("fn", "ä"), pytest.fail)
    assert passes.header(["a"]) is None
    passes.learn(Challenge("basic"))
    assert passes.header(["a"]) == "Basic " + base64.b64encode("fn:ä".encode()).decode()
