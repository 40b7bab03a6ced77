"""What an image's Python is: dependencies are chosen and laid out for it, wherever they are installed."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from dataclasses import dataclass

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Docker's names of architectures, and those of wheels."""

_MANYLINUX = ((2, 17), (2, 28), *((2, minor) for minor in range(31, 41)))
"""Versions of glibc that uv has a name for."""

_ORDINARY = (2, 28)
"""Where nobody says which: of 2018, older than that of any distribution that is still looked after."""


@dataclass(frozen=True)
class Target:
    python: str
    """`3.11`: without the patch level, which wheels do not depend on."""
    architecture: str
    """`amd64` or `arm64`."""
    libc: str
    """`glibc` or `musl`."""
    interpreter: str
    """Where Python lies in the image: `/usr/bin/python3.11`."""
    libc_version: str = ""
    """`2.36`; of glibc. Empty: unknown, and only what runs with 2.28 is taken."""

    def __str__(self) -> str:
        return f"linux/{self.architecture}, Python {self.python}, {self.libc}"

    @property
    def site_packages(self) -> str:
        """Below the virtual environment."""
        return f"lib/python{self.python}/site-packages"

    @property
    def platform(self) -> str:
        """As uv names it."""
        machine = _MACHINES[self.architecture]
        if self.libc == "musl":
            return f"{machine}-unknown-linux-musl"
        has = _version(self.libc_version) or _ORDINARY
        major, minor = max((each for each in _MANYLINUX if each <= has), default=_MANYLINUX[0])
        return f"{machine}-manylinux_{major}_{minor}"

    @property
    def is_here(self) -> bool:
        """Does what is compiled on this machine, with the Python that runs here, run there?"""
        here = of_this_machine()
        same = (here.python, here.architecture, here.libc) == (self.python, self.architecture, self.libc)
        return same and (not self.libc_version or _version(here.libc_version) <= _version(self.libc_version))


def of_this_machine() -> Target:
    """The Python that runs here. `interpreter` is the file itself, behind a virtual environment's links."""
    machine = platform.machine()
    libc = "musl" if "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "") else "glibc"
    return Target(
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        architecture={name: ours for ours, name in _MACHINES.items()}.get(machine, machine),
        libc=libc,
        interpreter=os.path.realpath(sys.executable),
        libc_version=platform.libc_ver()[1] if libc == "glibc" else "",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
