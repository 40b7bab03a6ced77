"""What is shown of an installer's output: its reason, short, and no secrets."""

import pytest
from fleetfn_builder.assembly.quoting import Scrubber, reason


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("index https://team:t0ken@pypi.example/simple", "index https://***@pypi.example/simple"),
        ("index https://t0ken@pypi.example/simple", "index https://***@pypi.example/simple"),
        ("the token is hunter22", "the token is ***"),
        ("quoted: a%2Fb%3Dc", "quoted: ***"),
        ("two lines: first-line and second-line", "two lines: *** and ***"),
        ("the password p4ssw0rd alone", "the password *** alone"),
        ("see https://docs.example/a@b", "see https://docs.example/a@b"),
        (
            "Failed to fetch: https://pypi.example/simple/idna/?key=k3y-k3y",
            "Failed to fetch: https://pypi.example/simple/idna/?***",
        ),
        ("its key is k3y-k3y", "its key is ***"),
        ("1 package, mail me@fleet.example", "1 package, mail me@fleet.example"),
    ],
    ids=["userinfo", "user-only", "value", "percent", "lines", "password", "at-in-path", "query", "key", "ordinary"],
)
def test_secrets_are_taken_out(text, shown):
    secrets = {
        "TOKEN": "hunter22",
        "SIGNED": "a/b=c",
        "KEY": "first-line\nsecond-line\n",
        "URL": "https://build:p4ssw0rd@pypi.example",
        "SWITCH": "1",
        "KEYED": "https://pypi.example/simple?key=k3y-k3y",
    }
    assert Scrubber(secrets)(text) == shown


def test_without_secrets_urls_are_scrubbed_still():
    assert Scrubber()("ftp://a:b@c") == "ftp://***@c"


def test_a_reason_begins_at_the_error_and_keeps_the_hint():
    lines = [
        "Using CPython 3.11.7",
        "Resolved 1 package in 1.2s",
        "error: No solution found when resolving dependencies",
        "  cause: Because a depends on b>=2, a cannot be used.",
        "         And because you require a, your requirements are unsatisfiable.",
        "",
        "hint: Wheels are available for `b`",
    ]
    assert reason(lines) == [
        "No solution found when resolving dependencies",
        "Because a depends on b>=2, a cannot be used.",
        "And because you require a, your requirements are unsatisfiable.",
        "hint: Wheels are available for `b`",
    ]


def test_the_frames_of_older_versions_are_taken_off():
    lines = ["  × No solution found:", "  ╰─▶ Because you require a==1", "      and a==2, they are unsatisfiable."]  # noqa: RUF001 - uv's own
    assert reason(lines) == ["No solution found:", "Because you require a==1", "and a==2, they are unsatisfiable."]


def test_a_builds_own_output_is_cut_to_its_end():
    compiling = [f"         compiling {number}.c" for number in range(500)]
    lines = [
        "error: Failed to build `a==1`",
        "  cause: The build backend returned an error",
        "",
        "         [stdout]",
        *compiling,
        "",
        "         [stderr]",
        *compiling,
        "         fatal: can.h not found",
        "",
        "hint: Build failures usually indicate a problem with the package",
    ]
    shown = reason(lines)
    assert shown[:2] == ["Failed to build `a==1`", "The build backend returned an error"]
    assert shown[-2:] == ["fatal: can.h not found", "hint: Build failures usually indicate a problem with the package"]
    assert len(shown) < 20


def test_output_without_an_error_is_quoted_by_its_last_lines():
    assert reason([*(f"line {number}" for number in range(50)), ""])[-1] == "line 49"
