"""Recorded walks: compared with what a backend answered, and counted."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ptewalk.cosim.formats.walks import TRUSTED, WalkCase, run_on_model
from ptewalk.model import x86
from ptewalk.model.paging import GeneralProtection, PageFault, Result, Translated

__all__ = ["WalkTally", "check", "describe_outcome", "merge_tallies", "other_machine", "tally_model", "tally_unicorn"]

_P: Final = 1 << x86.EntryBit.P
_A: Final = 1 << x86.EntryBit.A
_PS: Final = 1 << x86.EntryBit.PS
_TRIED: Final = 2000
"""Walks that another machine is tried on."""
_FRAME: Final = (1 << x86.FRAME_HIGH + 1) - (1 << x86.FRAME_LOW)


def check(
    case: WalkCase, result: Result, after: Mapping[int, int], *, marks_large_before_check: bool = False
) -> str | None:
    """Compare one walk with its recording.

    The outcome, its physical address or error code, and every word of the tables must be as recorded; the entries only
    where the recording tells which bits were added. After a page
    fault A may be set or not in each entry that the walk had passed [SDM 3A 4.8]; nothing else may differ.

    Parameters
    ----------
    case : WalkCase
        The recording.
    result : Result
        What was seen.
    after : mapping of int to int
        Address to value of every word of the table pages that is not 0 afterwards: the entries, and their neighbours if
        they changed.
    marks_large_before_check : bool
        Tolerate A on a 1 GiB leaf that then faults. Unicorn and QEMU set it there before they check; the manual does
        not allow it.

    Returns
    -------
    str or None
        None when they agree, else what differs in one line.
    """
    expected, seen = describe_outcome(case), _describe_result(result)
    if expected != seen:
        return f"expected {expected}, seen {seen}"
    optional = _optional_bits(case)
    if marks_large_before_check and case.outcome == x86.Outcome.PAGE_FAULT:
        optional |= {address: _A for address in _large_leaf(case)}
    recorded = () if case.added is None else zip(case.entries, case.added, strict=True)
    for (address, value), added in recorded:
        left = after.get(address, 0)
        if (left ^ (value | added)) & ~(optional.get(address, 0) & ~added):
            return f"entry at {address:#x}: expected {value | added:#x}, seen {left:#x}"
    strangers = after.keys() - {address for address, _ in case.entries}
    if strangers:
        address = min(strangers)
        return f"word at {address:#x} of a table, no entry of the walk: expected 0x0, seen {after[address]:#x}"
    return None


def _describe_result(result: Result) -> str:
    if isinstance(result, Translated):
        return f"OK {result.physical:#x}"
    if isinstance(result, PageFault):
        return f"PF {result.code:#x}"
    return "GP" if isinstance(result, GeneralProtection) else "bus error"


def _optional_bits(case: WalkCase) -> dict[int, int]:
    """Address to the bits that may be set or not after a page fault: A of the entries that the walk had passed."""
    if case.outcome != x86.Outcome.PAGE_FAULT or case.eager is None:
        return {}
    optional = {address: bits & _A for (address, _), bits in zip(case.entries, case.eager, strict=True)}
    for address in _large_leaf(case):
        optional[address] = 0
    return optional


def _large_leaf(case: WalkCase) -> list[int]:
    """The address of the 1 GiB leaf that this walk comes to, if it does."""
    values = dict(case.entries)
    table = case.table_root
    for level in range(case.levels, 2, -1):
        index = case.linear >> x86.LEVEL_SHIFT[level] & x86.TABLE_ENTRIES - 1
        address = table + index * x86.ENTRY_BYTES
        value = values.get(address, 0)
        if level == 3 and value & _P and value & _PS:
            return [address]
        if not value & _P or value & _PS:
            break
        table = value & _FRAME
    return []


def describe_outcome(case: WalkCase) -> str:
    """The recorded outcome in words: "OK 0x1234", "PF 0x7" or "GP"."""
    if case.outcome == x86.Outcome.OK:
        return f"OK {case.value:#x}"
    return f"PF {case.value:#x}" if case.outcome == x86.Outcome.PAGE_FAULT else "GP"


@dataclass(slots=True)
class WalkTally:
    """Counts of one run over a walk file.

    Attributes
    ----------
    cases : int
        Every case given, of any trust, skipped ones included.
    agree, differ : int
        Cases of trust 3.
    skipped : dict of str to list of int
        Reason to the running numbers of the cases of trust 3 that were not run.
    first_difference : str or None
        The first of `differ`, in one line.
    others : dict of int to dict
        Trust below 3 to its own ``{"cases", "agree", "differ", "skipped"}``.
    """

    cases: int = 0
    agree: int = 0
    differ: int = 0
    skipped: dict[str, list[int]] = field(default_factory=dict)
    first_difference: str | None = None
    others: dict[int, dict[str, int]] = field(default_factory=dict)

    def add(self, case: WalkCase, difference: str | None) -> None:
        """Count a case that was run, by what `check` said of it."""
        self.cases += 1
        if case.trust != TRUSTED:
            self._other(case)["agree" if difference is None else "differ"] += 1
        elif difference is None:
            self.agree += 1
        else:
            self.differ += 1
            if self.first_difference is None:
                self.first_difference = f"case {case.number} (family {case.family}): {difference}"

    def skip(self, case: WalkCase, reason: str) -> None:
        """Count a case that was not run, and why."""
        self.cases += 1
        if case.trust != TRUSTED:
            self._other(case)["skipped"] += 1
        else:
            self.skipped.setdefault(reason, []).append(case.number)

    def as_json(self) -> dict[str, Any]:
        """An object for ``--json``: cases, agree, differ, skipped (a number), first_difference, and the details."""
        return {
            "cases": self.cases,
            "agree": self.agree,
            "differ": self.differ,
            "skipped": sum(map(len, self.skipped.values())),
            "first_difference": self.first_difference,
            "skipped_cases": self.skipped,
            "other_trust": {str(trust): counts for trust, counts in sorted(self.others.items())},
        }

    def _other(self, case: WalkCase) -> dict[str, int]:
        counts = self.others.setdefault(case.trust, {"cases": 0, "agree": 0, "differ": 0, "skipped": 0})
        counts["cases"] += 1
        return counts


def merge_tallies(tallies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One object of several of `WalkTally.as_json`: counts added, the first of the first differences."""
    merged = WalkTally().as_json()
    for tally in tallies:
        for name in ("cases", "agree", "differ", "skipped"):
            merged[name] += tally[name]
        merged["first_difference"] = merged["first_difference"] or tally["first_difference"]
        for reason, numbers in tally["skipped_cases"].items():
            merged["skipped_cases"].setdefault(reason, []).extend(numbers)
        for trust, counts in tally["other_trust"].items():
            sums = merged["other_trust"].setdefault(trust, dict.fromkeys(counts, 0))
            for name, count in counts.items():
                sums[name] += count
    return merged


def tally_model(cases: Iterable[WalkCase]) -> WalkTally:
    """The golden model's answers to recorded walks, counted."""
    tally = WalkTally()
    for case in cases:
        tally.add(case, check(case, *run_on_model(case)))
    return tally


def other_machine(cases: Sequence[WalkCase]) -> str | None:
    """A hint when walks that differ on the golden model all agree on a machine of another width.

    Parameters
    ----------
    cases : sequence of WalkCase
        Some of trust 3; those that differ, and as many others, are tried with each MAXPHYADDR from 32 to 52 bits that
        holds their addresses, with and without 1 GiB pages.
    """
    trusted = [case for case in cases if case.trust == TRUSTED]
    differing = [case for case in trusted if check(case, *run_on_model(case))][:_TRIED]
    if not differing:
        return None
    asked = [*differing, *random.Random(0).sample(trusted, min(_TRIED, len(trusted)))]
    used = max(
        max((address for case in asked for address, _ in case.entries), default=0),
        max((case.value for case in asked if case.outcome == x86.Outcome.OK), default=0),
    )
    fits = [
        (bits, gigabyte)
        for gigabyte in (True, False)
        for bits in range(max(32, used.bit_length()), x86.MAX_PHYSICAL_BITS + 1)
        if all(
            check(case, *run_on_model(replace(case, physical_bits=bits, gigabyte_pages=gigabyte))) is None
            for case in asked
        )
    ]
    if not fits:
        return None
    widths = sorted({bits for bits, _ in fits})
    told = f"{widths[0]}" if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"
    pages = "" if fits[0][1] else " and --no-gigabyte-pages"
    return f"was this recorded on another machine? All walks tried agree with --physical-bits {told}{pages}"


def tally_unicorn(cases: Iterable[WalkCase]) -> WalkTally:
    """Unicorn's answers to recorded walks, counted; what it cannot run is skipped, with the reason."""
    from ptewalk.cosim.oracles.unicorn import UnicornMmu, WalkNotRun  # an optional dependency

    voice = UnicornMmu()
    tally = WalkTally()
    for case in cases:
        reason = voice.skip_reason(case)
        if reason is not None:
            tally.skip(case, reason)
            continue
        try:
            answer = voice.run(case)
        except WalkNotRun as error:
            tally.skip(case, error.reason)
            voice = UnicornMmu()  # what it is left in is not known
        else:
            tally.add(case, check(case, *answer, marks_large_before_check=True))
    return tally
