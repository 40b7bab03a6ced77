"""Dependency sets and warm parents of a real node. Packages are local wheels, so no index is asked."""

import zipfile

import pytest
from running_node import RunningNode, wait_for, write_function

pytestmark = pytest.mark.node

CODE = "import tiny\n\ndef hello(name: str) -> str:\n    return f'{tiny.WORD} {name}'\n"
SPEC = """
handler: handler:hello
scale: {idle: 1s}
triggers:
- {name: hi, key: null, http: {path: /NAME}}
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    node = RunningNode(tmp_path_factory.mktemp("node"))
    try:
        yield node.start()
    finally:
        node.close()


def wheel(folder, word, *requires):
    """tiny 1.0, a package of one word."""
    folder.mkdir(parents=True, exist_ok=True)
    info = "tiny-1.0.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    members = {
        "tiny.py": f"WORD = {word!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
    }
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as file:
        for name, text in members.items():
            file.writestr(zipfile.ZipInfo(name), text)  # without the time of day: equal content, equal wheels


def function(folder, name, word="salut", requires=()):
    wheel(folder, word, *requires)
    requirements = "--no-index\n./tiny-1.0-py3-none-any.whl  # ours\n"
    return write_function(folder, CODE, SPEC.replace("NAME", name), name=name, requirements=requirements)


def test_requirements_are_installed_once_and_the_worker_sees_them(node, tmp_path):
    steps, last = node.deploy(function(tmp_path / "one", "one"))
    assert last.revision is not None, last
    assert any(each.startswith("installing dependencies") for each in steps)
    assert node.http("POST", "/one", "x")[1] == b"salut x"
    steps, _ = node.deploy(function(tmp_path / "two", "two"))
    assert not any(each.startswith("installing dependencies") for each in steps)
    assert node.http("POST", "/two", "x")[1] == b"salut x"
    assert len(list((node.data / "envs").iterdir())) == 1
    wait_for(lambda: len(node.parents()) == 2, what="two warm parents")


def test_another_content_is_another_dependency_set(node, tmp_path):
    node.deploy(function(tmp_path / "three", "three", word="ciao"))
    assert node.http("POST", "/three", "x")[1] == b"ciao x"


def test_a_conflict_with_the_runtime_is_an_error_that_quotes_the_resolver(node, tmp_path):
    folder = write_function(
        tmp_path / "clash",
        CODE.replace("import tiny\n", "class tiny: WORD = 'old'\n"),
        SPEC.replace("NAME", "clash"),
        name="clash",
    )
    node.deploy(folder)
    function(folder, "clash", requires=["msgspec==0.1"])
    _, last = node.deploy(folder)
    assert last.refusal.message.startswith("requirements.txt cannot be installed")
    assert "msgspec==0.1" in last.refusal.message
    assert node.http("POST", "/clash", "x")[1] == b"old x"


def test_warm_imports_are_loaded_before_the_worker_is_forked(node, tmp_path):
    code = (
        "import sys\n"
        "LOADED = 'wave' in sys.modules\n"
        "import wave\n"
        "def hello(name: str) -> str:\n    return str(LOADED)\n"
    )
    cold = write_function(tmp_path / "cold", code, SPEC.replace("NAME", "cold"), name="cold")
    warm_spec = SPEC.replace("NAME", "warm").replace("idle: 1s", "idle: 1s, warm: imports")
    warm = write_function(tmp_path / "warm", code, warm_spec, name="warm")
    for folder in (cold, warm):
        _, last = node.deploy(folder)
        assert last.revision is not None, last
    assert node.http("POST", "/cold", "x")[1] == b"False"
    assert node.http("POST", "/warm", "x")[1] == b"True"


def test_a_parent_with_threads_does_not_fork_and_the_worker_starts_anyway(node, tmp_path):
    package = tmp_path / "threads"
    code = "import thready\n\ndef hello(name: str) -> str:\n    return 'alone'\n"
    spec = SPEC.replace("NAME", "threads").replace("idle: 1s", "idle: 1s, warm: imports")
    folder = write_function(
        package, code, spec, name="threads", requirements="--no-index\n./tiny-1.0-py3-none-any.whl\n"
    )
    wheel(package, "x")
    with zipfile.ZipFile(package / "tiny-1.0-py3-none-any.whl", "a") as file:
        file.writestr(
            "thready.py",
            "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n",
        )
    _, last = node.deploy(folder)
    assert last.revision is not None, last
    assert node.http("POST", "/threads", "x")[1] == b"alone"
    assert "starts without a warm parent" in node.log()
    node.asleep("threads")
    wait_for(lambda: not node.status("threads").workers, what="sleep")
    assert node.http("POST", "/threads", "x")[1] == b"alone"


def test_siblings_draw_different_random_numbers(node, tmp_path):
    code = "import random\n\ndef hello(name: str) -> str:\n    return str(random.random())\n"
    drawn = set()
    folder = write_function(tmp_path / "dice", code, SPEC.replace("NAME", "dice"), name="dice")
    node.deploy(folder)
    for _ in range(3):
        drawn.add(node.http("POST", "/dice", "x")[1])
        node.asleep("dice")
    assert len(drawn) == 3
