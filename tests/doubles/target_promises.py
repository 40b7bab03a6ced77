"""What Target promises, as tests over the fixtures `target` (an adapter), `environment` (of its kind) and `write`.

A file that has these fixtures runs them by `from target_promises import *`.
"""

import pytest
from fleetfn.errors import TargetError
from fleetfn_deploy.target import Digest, Source
from fleetfn_spec.load import load_function

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""


@pytest.fixture
def write(tmp_path):
    def write(code):
        (tmp_path / "function.yaml").write_text(FUNCTION)
        (tmp_path / "handler.py").write_text(code)
        return Source(tmp_path, load_function(tmp_path))

    return write


ONE = "def hello(name: str) -> str:\n    return name\n"
TWO = "def hello(name: str) -> str:\n    return name + name\n"
BROKEN = "raise RuntimeError('on purpose')\n" + ONE


async def deploy(target, what, environment):
    steps = []
    revision = await target.deploy(what, environment, progress=steps.append)
    assert steps
    return revision


async def test_a_deploy_returns_the_revision_that_serves(target, environment, write):
    revision = await deploy(target, write(ONE), environment)
    assert (revision.name, revision.number, revision.serving) == ("hello", 1, True)
    (status,) = await target.status()
    assert (status.name, status.revision.digest) == ("hello", revision.digest)
    assert [each.name for each in status.triggers] == ["web"]
    assert [each.name for each in await target.status("hello")] == ["hello"]


async def test_a_plan_changes_nothing_and_names_the_digest_to_come(target, environment, write):
    first = await target.plan(write(ONE), environment)
    assert (first.serving, first.changes) == (None, [])
    assert await target.status() == []
    revision = await deploy(target, write(ONE), environment)
    assert revision.digest == first.digest
    same = await target.plan(write(ONE), environment)
    assert (same.serving, same.digest, same.changes) == (revision.digest, revision.digest, [])
    other = await target.plan(write(TWO), environment)
    assert other.digest != revision.digest
    assert [change.field for change in other.changes] == ["source"]


async def test_a_failed_deploy_leaves_the_old_revision_serving(target, environment, write):
    good = await deploy(target, write(ONE), environment)
    with pytest.raises(TargetError):
        await target.deploy(write(BROKEN), environment, progress=lambda _: None)
    (status,) = await target.status("hello")
    assert status.revision.digest == good.digest


async def test_a_digest_goes_back_to_what_the_target_has(target, environment, write):
    first = await deploy(target, write(ONE), environment)
    await deploy(target, write(TWO), environment)
    plan = await target.plan(Digest("hello", first.digest), environment)
    assert plan.digest == first.digest
    again = await target.deploy(Digest("hello", first.digest), environment, progress=lambda _: None)
    assert (again.digest, again.number) == (first.digest, 3)


async def test_a_digest_that_nobody_has_is_refused(target, environment, write):
    await deploy(target, write(ONE), environment)
    with pytest.raises(TargetError):
        await target.plan(Digest("hello", "f" * 64), environment)
    with pytest.raises(TargetError):
        await target.deploy(Digest("hello", "f" * 64), environment, progress=lambda _: None)


async def test_a_deleted_function_is_gone(target, environment, write):
    await deploy(target, write(ONE), environment)
    await target.delete("hello", keep_state=False)
    assert await target.status() == []


async def test_unknown_functions_are_refused_everywhere(target):
    with pytest.raises(TargetError):
        await target.status("nobody")
    with pytest.raises(TargetError):
        await target.delete("nobody", keep_state=True)
    with pytest.raises(TargetError):
        async for _ in target.logs("nobody", follow=False, since=None):
            pass


async def test_logs_end_where_nobody_follows(target, environment, write):
    await deploy(target, write(ONE), environment)
    lines = [line async for line in target.logs("hello", follow=False, since=None)]
    assert all(isinstance(line, bytes) for line in lines)
