"""Shrinking: a scenario that fails is reduced to the fewest steps, and those to the smallest, that still fail.

Delta debugging (Zeller and Hildebrandt, ddmin) over the steps, then simpler arguments one by one, until nothing more
can be left out.

Example
-------
::

    from ptewalk.cosim.stimulus.shrink import shrink

    small = shrink(scenario, lambda candidate: "mremap" in {step.op["op"] for step in candidate.steps})
    assert len(small.steps) == 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from ptewalk.cosim.formats.scenarios import Op
from ptewalk.model.scenario.format import Scenario, Step

__all__ = ["prefix", "shrink", "with_operations"]

Fails = Callable[[Scenario], bool]

_SIZES: Final = ("n", "new_n")
_ATTEMPTS: Final = 500


def with_operations(scenario: Scenario, operations: Sequence[Op]) -> Scenario:
    """The scenario with other operations, and so without recorded answers."""
    steps = [Step(number, operation, None) for number, operation in enumerate(operations, 1)]
    return replace(scenario, steps=steps, header={**scenario.header, "steps": len(steps)})


def prefix(scenario: Scenario, steps: int) -> Scenario:
    """The first `steps` steps with their recorded answers, which do not depend on what came after."""
    header = {**scenario.header, "steps": steps}
    if header.get("a_unsure_from", 0) >= steps:
        header.pop("a_unsure_from", None)
    return replace(scenario, steps=scenario.steps[:steps], header=header)


def shrink(scenario: Scenario, fails: Fails, *, attempts: int = _ATTEMPTS) -> Scenario:
    """The smallest scenario found that `fails`.

    Parameters
    ----------
    scenario : Scenario
        It must fail.
    fails : callable
        Asked of candidates without recorded answers. One that cannot be run does not fail.
    attempts : int
        Calls of `fails` at most; the best scenario so far is given when they are used up.

    Raises
    ------
    ValueError
        `scenario` itself, without its answers, does not fail.
    """
    operations = [step.op for step in scenario.steps]
    if not fails(with_operations(scenario, operations)):
        raise ValueError(f"scenario {scenario.name!r} must fail before it can be shrunk")
    search = _Search(scenario, fails, attempts)
    while search.left:
        before = operations
        operations = _simpler(_fewer(operations, search), search)
        if operations == before:
            break
    return with_operations(scenario, operations)


class _Search:
    """Asks the predicate, of each candidate once, as long as attempts are left."""

    def __init__(self, scenario: Scenario, fails: Fails, attempts: int) -> None:
        self._scenario = scenario
        self._fails = fails
        self._seen: set[str] = set()
        self.left = attempts

    def fails(self, operations: list[Op]) -> bool:
        """Is this a scenario that fails?"""
        key = repr(operations)
        if not self.left or key in self._seen or not _can_run(operations):
            return False
        self._seen.add(key)
        self.left -= 1
        return self._fails(with_operations(self._scenario, operations))


def _can_run(operations: Sequence[Op]) -> bool:
    """Does every process that acts, or is acted upon, live?"""
    live, born = {0}, {0}
    for operation in operations:
        if operation["who"] not in live or operation.get("target", operation["who"]) not in live:
            return False
        if operation["op"] == "fork":
            if operation["child"] in born:
                return False
            live.add(operation["child"])
            born.add(operation["child"])
        elif operation["op"] == "exit":
            live.remove(operation["who"])
    return bool(operations)


def _fewer(operations: list[Op], search: _Search) -> list[Op]:
    """ddmin: leave out ever smaller runs of operations."""
    size = max(1, len(operations) // 2)
    while True:
        start, removed = 0, False
        while start < len(operations):
            # A fork is not missed where its child's own operations go too.
            for candidate in (
                operations[:start] + operations[start + size :],
                _without_orphans(operations[:start] + operations[start + size :]),
            ):
                if search.fails(candidate):
                    operations, removed = candidate, True
                    break
            else:
                start += size
        if size > 1:
            size //= 2
        elif not removed:
            return operations


def _without_orphans(operations: Sequence[Op]) -> list[Op]:
    """Without what processes do, or is done to them, that are never forked."""
    live = {0} | {operation["child"] for operation in operations if operation["op"] == "fork"}
    while True:
        kept = [o for o in operations if o["who"] in live and o.get("target", o["who"]) in live]
        born = {0} | {operation["child"] for operation in kept if operation["op"] == "fork"}
        if born == live:
            return kept
        live = born


def _simpler(operations: list[Op], search: _Search) -> list[Op]:
    """Smaller and plainer arguments, step by step; first one process instead of many, and all sizes at once."""
    alone = [_by_first(operation) for operation in operations if operation["op"] not in ("fork", "exit")]
    if alone != operations and search.fails(alone):
        operations = alone
    for limit in (1, 2, 4, 8, 16, 64, 512):
        candidate = [_limited(operation, limit) for operation in operations]
        if candidate != operations and search.fails(candidate):
            operations = candidate
            break
    for index in range(len(operations)):
        again = True
        while again:
            again = False
            for plainer in _plainer(operations[index]):
                candidate = [*operations[:index], plainer, *operations[index + 1 :]]
                if search.fails(candidate):
                    operations, again = candidate, True
                    break
    return operations


def _by_first(operation: Op) -> Op:
    """The operation done by, and to, process 0."""
    return operation | {key: 0 for key in ("who", "target") if key in operation}


def _limited(operation: Op, limit: int) -> Op:
    return operation | {key: min(operation[key], limit) for key in _SIZES if operation.get(key)}


def _plainer(operation: Op) -> Iterator[Op]:
    """The same operation with one thing less."""
    if operation != _by_first(operation) and operation["op"] != "exit":
        yield _by_first(operation)
    size = operation.get("n")
    if isinstance(size, int):
        for smaller in dict.fromkeys((1, 2, size // 2, size - max(1, size // 8))):
            if 0 < smaller < size:
                changed = {"n": smaller}
                if operation.get("new_n") == size:
                    changed["new_n"] = smaller
                yield operation | changed
                if operation["op"] in ("write", "read", "mem_write", "mem_read"):
                    yield operation | {"page": operation["page"] + size - smaller, "n": smaller}
    new_size = operation.get("new_n")
    if isinstance(new_size, int) and isinstance(size, int) and new_size not in (0, size):
        yield operation | {"new_n": size}
    if operation.get("step", 1) != 1:
        yield operation | {"step": 1}
    for flag in operation.get("flags") or () if isinstance(operation.get("flags"), list) else ():
        yield operation | {"flags": [kept for kept in operation["flags"] if kept != flag]}
    if operation.get("file_page"):
        yield operation | {"file_page": 0}
    if operation["op"] == "mmap":
        if operation["kind"] != "anon":
            yield operation | {"kind": "anon", "file_page": 0}
        if operation["prot"] not in ("rw", "r", "-"):
            yield operation | {"prot": "rw"}
