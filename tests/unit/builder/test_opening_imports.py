"""What speaking to a registry imports."""

import subprocess
import sys

LOOK = """
import sys
from fleetfn_builder import opening
opening.registry_class()
import httpx
assert callable(httpx.main)
print([name for name in ("httpx", "httpx._main", "click", "rich", "pygments") if name in sys.modules])
"""


def test_an_http_client_comes_without_its_command_line():
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['httpx']"
