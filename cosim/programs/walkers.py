"""The golden model as the MMU of a program, beside the gateware's `cosim.bench.single.SingleWalker`."""

from __future__ import annotations

from typing import Protocol

from ptewalk.model.memory import FixedMemory
from ptewalk.model.paging import Request, Result, State, translate

__all__ = ["ModelWalker", "Walker"]


class Walker(Protocol):
    """Translates one request at a time.

    Attributes
    ----------
    counters : dict
        What it counted: name to number.
    """

    @property
    def counters(self) -> dict[str, int]:
        """Name to number."""

    def walk(self, state: State, request: Request) -> Result:
        """One walk of the tables."""

    def invalidate(self, linear: int | None) -> None:
        """Forget what is cached for a linear address, or everything."""


class ModelWalker:
    """Each request is one walk by `translate`."""

    def __init__(self, memory: FixedMemory) -> None:
        self._memory = memory

    @property
    def counters(self) -> dict[str, int]:
        """Nothing is counted."""
        return {}

    def walk(self, state: State, request: Request) -> Result:
        """As `Walker.walk`."""
        return translate(self._memory, state, request)

    def invalidate(self, linear: int | None) -> None:
        """As `Walker.invalidate`: nothing is cached."""
