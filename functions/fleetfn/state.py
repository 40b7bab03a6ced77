"""State as an argument: `State[T]`, the value of the event's key, and `Snapshot[T]`, a read of it outside the lane."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from fleetfn.invocation import UNCHANGED, Unchanged
from fleetfn.values import Codec

T = TypeVar("T")
_UNREAD: Any = object()


class Invocation(Protocol):
    """Whose state it is: context.Context."""

    def check(self, what: str) -> None: ...


class Cell:
    """What one invocation knows of its key's value: the stored bytes, and the object the handler works on."""

    __slots__ = ("codec", "exists", "invocation", "make", "stored", "touched", "value")

    def __init__(self, stored: bytes | None, codec: Codec, make: Callable[[], Any], invocation: Invocation) -> None:
        self.codec = codec
        self.make = make
        self.invocation = invocation
        self.stored = stored
        self.exists = stored is not None
        self.value = _UNREAD if stored is None else codec.load(stored)
        self.touched = False

    def check(self) -> None:
        self.invocation.check("use its state")

    def get(self) -> Any:
        self.invocation.check("use its state")
        self.touched = True
        if self.value is _UNREAD:
            self.value = self.make()
        return self.value

    def set(self, value: Any) -> None:
        self.check()
        self.touched = True
        self.exists = True
        self.value = value

    def delete(self) -> None:
        self.check()
        self.touched = False
        self.exists = False
        self.value = _UNREAD

    def encoded(self) -> bytes | None | Unchanged:
        """What to save. A changed value is read back once, so that no run saves what the next one cannot read."""
        if not self.touched:
            return UNCHANGED if self.exists or self.stored is None else None
        data = self.codec.encode(self.value)
        if data == self.stored:
            return UNCHANGED
        self.codec.check(data)
        return data


class State(Generic[T]):
    """The value kept for the event's key. Saved after the handler returned; a handler that fails changes nothing."""

    __slots__ = ("_cell",)
    _cell: Cell

    def __init__(self, cell: Cell) -> None:
        _set_state_cell(self, cell)

    @property
    def value(self) -> T:
        """The T itself, to change in place or to replace; `T()` if nothing is stored."""
        return self._cell.get()  # type: ignore[no-any-return]  # the cell holds what the codec of T made

    @value.setter
    def value(self, value: T) -> None:
        self._cell.set(value)

    @property
    def exists(self) -> bool:
        """A value is stored, or was assigned in this run."""
        self._cell.check()
        return self._cell.exists

    def delete(self) -> None:
        """Forget the value: as if none had ever been stored."""
        self._cell.delete()

    if not TYPE_CHECKING:  # type checkers find a forgotten .value by themselves

        def __setattr__(self, name: str, value: object) -> None:
            if name != "value":
                raise AttributeError(f"State has no attribute {name!r}: forgot .value? (state.value.{name} = ...)")
            object.__setattr__(self, name, value)

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"State has no attribute {name!r}: forgot .value? (state.value.{name})")


class Snapshot(Generic[T]):
    """A read of the key's value as last saved, without waiting for the key's lane. Changes to it go nowhere."""

    __slots__ = ("_cell",)
    _cell: Cell

    def __init__(self, cell: Cell) -> None:
        _set_snapshot_cell(self, cell)

    @property
    def value(self) -> T:
        """The T itself; `T()` if nothing is stored."""
        return self._cell.get()  # type: ignore[no-any-return]  # the cell holds what the codec of T made

    @property
    def exists(self) -> bool:
        self._cell.check()
        return self._cell.exists

    if not TYPE_CHECKING:  # as above

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"cannot set {name!r}: a Snapshot is read only, take State to change the value")

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"Snapshot has no attribute {name!r}: forgot .value? (snapshot.value.{name})")


# Past their own __setattr__, at the price of a plain slot.
_set_state_cell = State.__dict__["_cell"].__set__
_set_snapshot_cell = Snapshot.__dict__["_cell"].__set__
