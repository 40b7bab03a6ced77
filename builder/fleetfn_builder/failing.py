"""What builds fail by beside BuildError, in its words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fleetfn_builder.assembly import quoting
from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.builder import BuildError


@contextmanager
def in_words() -> Iterator[None]:
    """Raises BuildError: what cannot be assembled, and a disk that does not take or give what it should."""
    try:
        yield
    except AssemblyError as error:
        raise BuildError(error.message, hint=error.hint) from error
    except OSError as error:  # of a disk: what speaks to others raises its own
        if error.errno is None:
            raise
        raise BuildError(
            f"the build cannot go on: {error.filename or 'a file'}: {error.strerror or error}",
            hint=quoting.space(error),
        ) from error
