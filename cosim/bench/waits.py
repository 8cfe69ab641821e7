"""When an invalidation that waits may be complete, as a testbench sees it at the ports."""

from __future__ import annotations

from collections import Counter
from typing import Final

from ptewalk.model.x86 import Wait

__all__ = ["WAIT_COUNTS", "WaitRules"]

WAIT_COUNTS: Final = ("completed stores", "completed all", "accepted beside a wait")
"""Invalidations that were complete, by what they waited for; requests accepted while one waited."""


class WaitRules:
    """Keeps, for each invalidation that waits, the tags of what it waits for.

    Within a cycle: the request that is accepted, then the invalidation, what is answered and what retires, and the
    completion at last.

    Attributes
    ----------
    counts : Counter of str
        By `WAIT_COUNTS`.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._flying: set[int] = set()
        self._granted: dict[int, bool] = {}  # tag to whether it is a store
        self._waiting: list[tuple[Wait, set[int]]] = []

    @property
    def waiting(self) -> int:
        """Invalidations that are not complete."""
        return len(self._waiting)

    def accepted(self, tag: int) -> None:
        """A request is in flight."""
        self._flying.add(tag)
        self.counts["accepted beside a wait"] += bool(self._waiting)

    def answered(self, tag: int, *, granted: bool, store: bool) -> None:
        """It is answered; `granted`: it will retire."""
        self._flying.discard(tag)
        if granted:
            self._granted[tag] = store
        for wait, tags in self._waiting:
            if not granted or not (store or wait == Wait.ALL):
                tags.discard(tag)

    def retired(self, tag: int) -> None:
        """A grant has retired."""
        self._granted.pop(tag, None)
        for _, tags in self._waiting:
            tags.discard(tag)

    def invalidated(self, wait: Wait) -> None:
        """An invalidation was accepted."""
        if wait != Wait.NONE:
            granted = {tag for tag, store in self._granted.items() if store or wait == Wait.ALL}
            self._waiting.append((wait, self._flying | granted))

    def completed(self, wait: int) -> str | None:
        """One is said to be complete; the rule that this breaks, in words."""
        if not self._waiting:
            return "an invalidation was complete that did not wait"
        due, tags = self._waiting.pop(0)
        if wait != due:
            return f"an invalidation that waits for {due.name} was complete as one that waits for {Wait(wait).name}"
        if tags:
            return f"an invalidation was complete before what it waits for: tags {sorted(tags)}"
        self.counts[f"completed {due.name.lower()}"] += 1
        return None
