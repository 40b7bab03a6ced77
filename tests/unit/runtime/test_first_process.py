"""The first process of a container, tried as a child of the test: `child` is what it does as process 1."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

RUN = "import sys; from fleetfn_runtime import first_process; sys.exit(first_process.child({}))"


@contextlib.contextmanager
def started(work, prelude=""):
    program = f"{prelude}\n{RUN.format(work)}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, bufsize=1) as one:
        try:
            yield one
        finally:
            one.kill()


@pytest.mark.parametrize(
    ("work", "code"),
    [("lambda: 0", 0), ("lambda: 75", 75), ("lambda: __import__('os').kill(__import__('os').getpid(), 9)", 137)],
    ids=["done", "replace", "killed"],
)
def test_its_exit_code_is_the_workers(work, code):
    with started(work) as one:
        assert one.wait(60) == code


WAITS = """
import os, signal, sys
def work():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    print(os.getpid(), os.getsid(0), flush=True)
    while True:
        signal.pause()
"""


def test_signals_are_passed_on_to_a_session_of_its_own():
    with started("work", WAITS) as one:
        pid, session = map(int, one.stdout.readline().split())
        assert pid == session != os.getsid(0)
        one.send_signal(signal.SIGTERM)
        assert one.wait(60) == 3


LATE = """
import os, signal
waited_for = os.wait
def wait():
    found = waited_for()
    os.kill(os.getpid(), signal.SIGTERM)
    return found
os.wait = wait
"""


def test_a_signal_that_comes_when_the_worker_has_ended_changes_no_exit_code():
    with started("lambda: 75", LATE) as one:
        assert one.wait(60) == 75


ORPHANS = """
import ctypes, os, pathlib, signal, subprocess, time
ctypes.CDLL(None).prctl(36, 1)  # orphans come to us, as to process 1
def work():
    its, mine = os.pipe()
    subprocess.run(["sh", "-c", "exec 3<&0; cat <&3 & exit 0"], stdin=its, check=True)  # lives until `mine` is closed
    children = pathlib.Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children")
    end = time.monotonic() + 60
    seen = False
    while time.monotonic() < end:
        others = [each for each in children.read_text().split() if int(each) != os.getpid()]
        if others and not seen:
            seen = True
            os.close(mine)
        if seen and not others:
            return 0
        time.sleep(0.005)
    return 1
"""


def test_orphans_are_waited_for():
    with started("work", ORPHANS) as one:
        assert one.wait(90) == 0
