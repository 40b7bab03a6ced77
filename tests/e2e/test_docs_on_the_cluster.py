"""The first deploy of docs/cluster.md as it is typed there, by somebody who has the Role of that page and nothing more;
and the removal of everything of docs/operations.md.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documents import blocks
from fn_command import write_environments
from kafka_broker import create_topic, fresh_name
from user_of_a_cluster import waited

pytestmark = pytest.mark.e2e

DEPLOYED = re.compile(r"^first-alert revision 1 \([0-9a-f]{12}\) serves$", re.MULTILINE)


@pytest.fixture(scope="module")
def account(kubectl, kubeconfig, tmp_path_factory):
    """The kubeconfig of one who has the page's Role."""
    (page,) = [block.text for block in blocks("docs/cluster.md") if block.note == "role"]
    role = yaml.safe_load(page)
    role["metadata"]["namespace"] = kubectl.namespace
    kubectl.apply(role)
    kubectl("create", "serviceaccount", "developer")
    kubectl("create", "rolebinding", "fn-deploy", "--role=fn-deploy", f"--serviceaccount={kubectl.namespace}:developer")
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"] = [{"name": "developer", "user": {"token": kubectl("create", "token", "developer").strip()}}]
    for each in config["contexts"]:
        each["context"]["user"] = "developer"
    path = tmp_path_factory.mktemp("developer") / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


class Shell:
    """Types a page's lines, in one folder after the other."""

    def __init__(self, folder, namespace, **environ):
        wheel = os.environ.get("FN_E2E_WHEEL", "")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FN_") or name == "FN_CACHE"}
        own = {"FN_DEPLOY_FLEETFN": wheel} if wheel else {}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environ = {**kept, **own, **{name: str(value) for name, value in environ.items()}, "PATH": path}
        self._namespace = namespace
        self.folder = folder

    def type(self, lines):
        said = ""
        for line in lines:
            if line.startswith("cd "):
                self.folder /= line.removeprefix("cd ")
                continue
            command = line.replace("-n alerts", f"-n {self._namespace}").removesuffix(" -f")
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.folder, env=self._environ, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            said += done.stdout
        return said


def lines(page, section):
    """Those in its sh blocks."""
    return [
        line for block in blocks(page, section=section) if block.language == "sh" for line in block.text.splitlines()
    ]


@pytest.fixture
def environment(kubectl, registry_address, kafka_address, redis_address, python_image):
    """The page's, with this cluster's addresses."""
    (page,) = [
        block.text for block in blocks("docs/cluster.md", section="The first deploy") if block.language == "yaml"
    ]
    found = yaml.safe_load(page)["environments"][0]
    target = found["target"]["kubernetes"]
    del target["context"]
    target |= {"namespace": kubectl.namespace, "registry": f"{registry_address}/{kubectl.namespace}", "insecure": True}
    target |= {"base": python_image, "dapr": {"image": "daprio/daprd:1.14.0"}}
    found["connections"] = [{"name": "kafka", "kafka": {"brokers": [kafka_address]}}]
    found["state"]["dapr"]["metadata"] = [{"name": "redisHost", "value": redis_address}]
    return found


def test_the_first_deploy_and_the_removal_of_everything(
    kubectl, kubeconfig, account, environment, kafka_address, tmp_path
):
    write_environments(tmp_path, environment)
    secret, deploy = [], []
    for line in lines("docs/cluster.md", "The first deploy"):
        (secret if line.startswith("kubectl") else deploy).append(line)
    administrator = Shell(tmp_path, kubectl.namespace, KUBECONFIG=kubeconfig, KAFKA_PASSWORD=kubectl.namespace)
    administrator.type([line for line in secret if "create namespace" not in line])
    shell = Shell(tmp_path, kubectl.namespace, KUBECONFIG=account)

    made = next(i for i, line in enumerate(deploy) if line.startswith("cd "))
    shell.type(deploy[: made + 1])
    with_own_topics(shell.folder / "function.yaml", kafka_address)
    said = shell.type(deploy[made + 1 :])
    assert DEPLOYED.search(said)
    assert '"flat":' in said  # the state
    assert "pod first-alert-" in said
    # The kubelet says that a pod is ready some time after it has answered; who reads state keeps it awake until then.
    look = [line for line in deploy if line.startswith(("fn state get ", "fn describe "))]
    assert len(look) == 2
    waited(lambda: "running: 1 of 1 pods ready" in shell.type(look), 60, "a pod that is ready")

    removal = lines("docs/operations.md", "Removing everything")
    assert len(removal) == 2
    shell.type(removal[:1])
    administrator.type(removal[1:])
    kinds = re.search(r"delete (\S+) -l", removal[1])[1]
    left = kubectl.read(kinds, "--selector=app.kubernetes.io/managed-by=fleetfn")["items"]
    assert [each["metadata"]["name"] for each in left if "deletionTimestamp" not in each["metadata"]] == []


def with_own_topics(file, kafka_address):
    def fresh(found):
        topic = fresh_name(found[1])
        create_topic(kafka_address, topic)
        return f"topic: {topic}}}"

    text, places = re.subn(r"topic: ([\w.]+)}", fresh, file.read_text())
    assert places == 2
    file.write_text(text)
