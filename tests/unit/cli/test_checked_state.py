"""Whether a function keeps state decides what its environment has to say of it, and what its workers are given."""

import pytest
import yaml
from fleetfn_cli import checking
from fleetfn_spec.problems import SpecError

PLAIN = "def hello(name: str) -> str:\n    return name\n"
KEEPS = "from fleetfn import State\ndef hello(name: str, state: State[dict]) -> str:\n    return name\n"
READS = KEEPS.replace("State", "Snapshot")
LACKS = f"import nowhere_to_be_found\n{PLAIN}"

STATE = {"dapr": {"component": "vehicles"}}


@pytest.fixture
def checked(tmp_path):
    """The environment of a check of `code`."""

    def check(code, state=STATE):
        spec = {
            "handler": "handler:hello",
            "triggers": [{"name": "web", "key": "path.car", "http": {"path": "/hello/{car}"}}],
        }
        function = {"apiVersion": "fleetfn.dev/v1alpha1", "kind": "Function", "metadata": {"name": "hello"}}
        place = {"name": "prod", "target": {"kubernetes": {"namespace": "alerts", "registry": "harbor.example/alerts"}}}
        environments = {"apiVersion": "fleetfn.dev/v1alpha1", "kind": "Environments"}
        listed = [place | ({"state": state} if state else {})]
        (tmp_path / "function.yaml").write_text(yaml.safe_dump(function | {"spec": spec}))
        (tmp_path / "environments.yaml").write_text(yaml.safe_dump(environments | {"environments": listed}))
        (tmp_path / "requirements.txt").write_text("")
        (tmp_path / "handler.py").write_text(code)
        return checking.check(tmp_path, "prod").environment

    return check


@pytest.mark.parametrize("code", [KEEPS, READS, LACKS])
def test_state_is_of_the_environment_where_a_handler_has_it_or_cannot_be_looked_at(checked, code):
    assert checked(code).state is not None


def test_without_any_there_is_none_in_the_environment_either(checked):
    assert checked(PLAIN).state is None
    assert checked(PLAIN, state=None).state is None


def test_an_environment_of_a_cluster_has_to_say_where_state_is(checked):
    with pytest.raises(SpecError) as caught:
        checked(KEEPS, state=None)
    [problem] = caught.value.problems
    assert problem.message == 'hello keeps state, and environment "prod" does not say where'
    assert "component" in problem.hint
