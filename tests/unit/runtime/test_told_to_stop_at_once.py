"""`python -m fleetfn_runtime` as process 1, told to stop before its worker has done anything."""

import subprocess
import sys

AT_ONCE = """
import os, runpy, signal, sys
sys.argv = ["fleetfn_runtime", "--folder", "nowhere"]
own = os.getpid
os.getpid = lambda: 1
os.setsid = lambda: os.kill(own(), signal.SIGTERM)  # in the child, which does not hear signals yet
runpy.run_module("fleetfn_runtime", run_name="__main__", alter_sys=True)
"""


def test_a_worker_that_is_told_to_stop_before_it_has_begun_ends_with_0():
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
