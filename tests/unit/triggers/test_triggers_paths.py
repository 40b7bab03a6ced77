"""Path templates of HTTP triggers."""

import pytest
from fleetfn_triggers import paths
from fleetfn_triggers.http import Http, clash


@pytest.mark.parametrize(
    "template", ["/", "/battery", "/battery/{vehicle}", "/a/{b}/c/{d_1}", "/a-b.c~d/x:y@z", "/-x/y"]
)
def test_takes_templates(template: str) -> None:
    assert paths.problems(template) == []


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", '"" does not begin with "/"'),
        ("battery", '"battery" does not begin with "/"'),
        ("/-/healthz", '"/-/healthz" begins with "/-/", which is FleetFn\'s own'),
        ("/-", '"/-" begins with "/-/", which is FleetFn\'s own'),
        ("/a//b", '"/a//b" has an empty segment'),
        ("/a/", '"/a/" has an empty segment'),
        ("/a/../b", '"/a/../b" has a segment "..", which clients resolve themselves'),
        ("/{a}/{a}", 'the name "a" stands twice in "/{a}/{a}"'),
        ("/a{b}", '"a{b}" is no {name}'),
        ("/{}", '"{}" is no {name}'),
        ("/{a.b}", '"{a.b}" is no {name}'),
        ("/{a", '"{a" is no {name}'),
        ("/a b", '"a b" holds characters that a path cannot'),
        ("/a?b", '"a?b" holds characters that a path cannot'),
        ("/ü", '"ü" holds characters that a path cannot'),
        ("/a%20b", '"a%20b" holds characters that a path cannot'),
    ],
)
def test_refuses_others(template: str, problem: str) -> None:
    ((message, hint),) = paths.problems(template)
    assert message == problem
    assert hint


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (Http(path="/a/{x}"), Http(path="/a/{y}"), "POST /a/{y}"),
        (Http(path="/a"), Http(path="/a", methods=("GET",)), None),
        (Http(path="/a/{x}"), Http(path="/a/b"), None),
        (Http(path="/a/{x}", methods=("GET", "PUT")), Http(path="/a/{x}", methods=("PUT",)), "PUT /a/{x}"),
    ],
)
def test_only_templates_of_equal_shape_clash(a: Http, b: Http, expected: str | None) -> None:
    assert clash(a, b) == expected
