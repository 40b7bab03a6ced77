"""The first process of a container: passes signals on to the worker, and waits for processes that nobody waits for.

The kernel drops signals that the first process has no handler for, and gives it every orphan. A worker cannot wait for
orphans itself: it would take the ends of its handlers' own children from them. So the worker is a child, forked before
anything is imported.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

_KILLED = 128
"""An exit code above it: ended by that signal, as shells have it."""


def kept(work: Callable[[], int]) -> int:
    """The exit code of `work`, done in a child where this is the first process, and here where it is not."""
    return child(work) if os.getpid() == 1 else work()


def child(work: Callable[[], int]) -> int:
    """Do it in a child with a session of its own: Ctrl-C of a terminal reaches it once, from here. Handlers of signals
    that are set by now are the child's: one that is passed on before `work` has set its own finds them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # until both know what to do with one
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        return work()

    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just been waited for: its exit code is on its way
            os.kill(pid, number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else _KILLED - code
