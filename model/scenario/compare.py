"""Comparing a step with what was recorded, field by field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ptewalk.model.linux import LATER_FLAGS, RECORDED_FLAGS
from ptewalk.model.scenario.format import Scenario
from ptewalk.model.scenario.numbering import TableIds
from ptewalk.model.scenario.runs import contents_table, entry_table, page_table
from ptewalk.model.scenario.snapshot import Outcome


@dataclass
class Difference:
    """Where a step differs: the field, what the model answered and what was recorded."""

    scenario: str
    step: int
    field: str
    captured: Any
    expected: Any

    def __str__(self) -> str:
        return f"{self.scenario} step {self.step}: {self.field}: captured {self.captured!r}, expected {self.expected!r}"


def differences(
    scenario: Scenario,
    index: int,
    outcome: Outcome,
    *,
    raw_tables: bool = True,
    allowed: Callable[[int, int, Any, Any], bool] = lambda who, at, captured, expected: False,
    tables: TableIds | None = None,
) -> list[Difference]:
    """Every field of a step that differs from the recording.

    Parameters
    ----------
    raw_tables : bool
        Compare `root`, `tables` and `ptes` where recorded; the way of tracking must be `off` for that.
    allowed : callable (process, page, captured, expected)
        Asked of each page whose pagemap entry differs, with rows of `page_table`; True: that is no difference.
    tables : TableIds or None
        The same for every step of a scenario.
    """
    recorded = scenario.steps[index].recorded
    if recorded is None:
        return []
    found: list[Difference] = []

    def check(name: str, captured: Any, expected: Any) -> None:
        if captured != expected:
            found.append(Difference(scenario.name, index, name, captured, expected))

    check("errno", outcome.errno, recorded.get("errno"))
    if scenario.steps[index].op["op"] != "syscall_read_into" or outcome.errno:
        check("ret", outcome.ret, recorded["ret"])
        check("vals", outcome.vals, recorded["vals"])
    else:
        # The format does not tell whether success is read(2)'s result, an "ok", or both.
        check("ret", recorded["ret"] in (0, 1) and recorded["vals"] in ([], ["ok"]), True)
    if "scan" in recorded:
        check("scan", outcome.scan, recorded["scan"])
    state = recorded["state"]
    check("state", sorted(outcome.state), sorted(map(int, state)))
    ignored = 0
    unsure = scenario.header.get("a_unsure_from")
    if unsure is not None and index >= unsure:
        ignored = 1 << 5
    for who_text, seen in state.items():
        snapshot = outcome.state.get(int(who_text))
        if snapshot is None:
            continue
        if seen.get("pages") is not None and snapshot.pages != seen["pages"]:
            captured, expected = page_table(snapshot.pages), page_table(seen["pages"])
            if captured != expected:
                window = scenario.window
                if window is not None:
                    captured, expected = _cut(captured, window), _cut(expected, window)
                for at in sorted(captured.keys() | expected.keys()):
                    one, other = captured.get(at), expected.get(at)
                    if one != other and not allowed(int(who_text), at, one, other):
                        check(f"pages[{who_text}][{at}]", one, other)
                        break
        if "vmas" in seen and snapshot.vmas != seen["vmas"]:
            kept = kept_flags(scenario)
            check(f"vmas[{who_text}]", with_flags(snapshot.vmas, kept), with_flags(seen["vmas"], kept))
        if "contents" in seen and snapshot.contents != seen["contents"]:
            held, due = contents_table(snapshot.contents or []), contents_table(seen["contents"])
            for at in sorted(held.keys() | due.keys()):
                if held.get(at) != due.get(at):
                    check(f"contents[{who_text}][{at}]", held.get(at), due.get(at))
                    break
        if not raw_tables:
            continue
        if "root" in seen and tables is not None and not tables.pair(snapshot.root, seen["root"]):
            check(f"root[{who_text}]", snapshot.root, seen["root"])
        if "tables" in seen and not (tables or TableIds()).match(snapshot.tables or [], seen["tables"]):
            check(f"tables[{who_text}]", snapshot.tables, seen["tables"])
        if "ptes" in seen and (ignored or snapshot.ptes != seen["ptes"]):
            entries, wanted = entry_table(snapshot.ptes, ignored), entry_table(seen["ptes"], ignored)
            for key in sorted(entries.keys() | wanted.keys()):
                if entries.get(key) != wanted.get(key):
                    check(f"ptes[{who_text}][{key[0]}]", entries.get(key), wanted.get(key))
                    break
    return found


def kept_flags(scenario: Scenario) -> frozenset[str]:
    """The VmFlags that a recording tells: those of old recordings, and any other that it shows somewhere."""
    if scenario.header.get("vm_flags") == "all":
        return RECORDED_FLAGS | LATER_FLAGS
    shown = {
        name
        for step in scenario.steps
        for seen in ((step.recorded or {}).get("state") or {}).values()
        for vma in seen.get("vmas") or ()
        for name in vma["flags"]
    }
    return RECORDED_FLAGS | shown


def with_flags(vmas: list[dict[str, Any]], kept: frozenset[str]) -> list[dict[str, Any]]:
    """Areas with the flags that are compared."""
    return [vma | {"flags": [name for name in vma["flags"] if name in kept]} for vma in vmas]


def _cut(table: dict[int, tuple[Any, ...]], window: int) -> dict[int, tuple[Any, ...]]:
    """Without the pages beyond the recorder's window that have no frame."""
    return {at: v for at, v in table.items() if at < window or v[2] is not None}
