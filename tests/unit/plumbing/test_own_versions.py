"""Pins of FleetFn's own dependencies."""

from importlib.metadata import version

from fleetfn_plumbing import own_versions


def names(*extras, without=()):
    return {line.partition("==")[0] for line in own_versions.pins(extras, without)}


def test_the_closure_of_what_is_installed_is_pinned():
    assert f"msgspec=={version('msgspec')}" in own_versions.pins((), ())
    assert {"uvicorn", "click", "h11"} <= names("gateway")


def test_an_extra_that_nobody_asked_for_is_not_among_them():
    assert "confluent-kafka" not in names("worker")
    assert "confluent-kafka" in names("kafka")


def test_what_is_left_out_takes_its_own_needs_along():
    assert {"typer", "rich", "pygments"} <= names("worker")
    assert not {"typer", "rich", "pygments"} & names("worker", without={"typer", "rich"})
