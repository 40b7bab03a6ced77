"""For a process that ends soon: no look for garbage, of which it makes little.

Python looks whenever some hundred objects are new, and all over once more when it ends. Nearly all objects of a short
command are made by imports, and stay: that is a fifth of its time. Modules are to be imported after this.
"""

from __future__ import annotations

import atexit
import gc

_MANY = 100_000
"""New objects after which it looks all the same: a command may turn out to live long."""


def begin() -> None:
    gc.set_threshold(_MANY)
    atexit.register(gc.freeze)  # at the end there is nothing to look through
