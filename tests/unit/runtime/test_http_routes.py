"""Which function and trigger a request is for."""

import pytest
from fleetfn_runtime.http_head import HeadError
from fleetfn_runtime.routes import Absent, Route, Routes, conflicts

ROUTES = Routes(
    [
        Route("battery", "show", "/battery/{vehicle}", ("GET",)),
        Route("battery", "put", "/battery/{vehicle}", ("PUT",)),
        Route("battery", "all", "/battery/all", ("GET",)),
        Route("cells", "cell", "/battery/{vehicle}/cells/{cell}", ("GET",)),
        Route("trips", "take", "/", ("POST",)),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "trigger", "params"),
    [
        ("GET", "/battery/LFV1", "show", {"vehicle": "LFV1"}),
        ("PUT", "/battery/LFV1", "put", {"vehicle": "LFV1"}),
        ("GET", "/battery/all", "all", {}),
        ("PUT", "/battery/all", "put", {"vehicle": "all"}),
        ("GET", "/battery/a%2Fb/cells/%C3%A4", "cell", {"vehicle": "a/b", "cell": "ä"}),
        ("GET", "/battery/all/cells/1", "cell", {"vehicle": "all", "cell": "1"}),
        ("HEAD", "/battery/LFV1", "show", {"vehicle": "LFV1"}),
        ("POST", "/", "take", {}),
    ],
)
def test_a_fixed_segment_wins_over_a_name(method, path, trigger, params):
    match = ROUTES.match(method, path)
    assert (match.route.trigger, match.params) == (trigger, params)


@pytest.mark.parametrize("path", ["/battery", "/battery/", "/battery/a/", "/battery//cells/1", "/nothing", "//"])
def test_paths_that_nobody_serves(path):
    assert ROUTES.match("GET", path) == Absent()


def test_another_method_is_told_which_ones_there_are():
    assert ROUTES.match("DELETE", "/battery/LFV1") == Absent(("GET", "HEAD", "PUT"))
    assert ROUTES.match("GET", "/") == Absent(("POST",))


def test_no_path_leads_out_of_its_template():
    with pytest.raises(HeadError):
        ROUTES.match("GET", "/battery/..")


def test_two_functions_conflict_where_a_method_and_the_shape_of_a_path_are_equal():
    new = [Route("other", "get", "/battery/{id}", ("GET", "POST")), Route("other", "free", "/battery/some", ("GET",))]
    assert [(method, old.trigger) for method, _, old in conflicts(new, ROUTES.routes)] == [("GET", "show")]
