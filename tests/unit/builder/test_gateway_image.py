"""What the image of a cluster's gateway is built from."""

from fleetfn_builder import gateway_image, inputs
from fleetfn_spec.load import load_function


def test_its_folder_is_a_function_that_a_build_takes():
    with gateway_image.source("fleetfn-gateway") as (folder, function):
        assert load_function(folder) == function
        assert function.name == "fleetfn-gateway"


def test_it_is_the_same_each_time():
    revisions = []
    for _ in range(2):
        with gateway_image.source("fleetfn-gateway") as (folder, function):
            revisions.append(inputs.read_source(folder, function, print).revision)
    assert revisions[0] == revisions[1]
