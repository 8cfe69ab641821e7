"""`ptewalk bench`: what it measures is right, and it judges."""

from __future__ import annotations

import numpy as np
import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.runs.gateware import WalkerLibrary
from ptewalk.cosim.speed import measure
from ptewalk.cosim.speed.fills import LEAST_RATIO, fill_rates
from ptewalk.model import bulk
from ptewalk.model.linux import PagemapBit, Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import RW, Entries, P

TRIES = 3
SLACK = 1.5
"""Measured beside other work, a speed may miss its target by this factor."""


@pytest.mark.thorough
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["linux-6.1", "linux-6.12"])
def test_results_on_the_entries_measured(monkeypatch: pytest.MonkeyPatch, name: str, compiled: bool) -> None:
    """The whole array, by the kernel's helpers."""
    if compiled:
        pytest.importorskip("numba")
    monkeypatch.setattr(measure, "_ENTRIES", 1 << 19)
    plain = Entries(PROFILES[name])
    entries = measure._entries(1, plain)
    present, dirty = (entries & np.uint64(P)) != 0, (entries & np.uint64(plain.SOFT_DIRTY)) != 0
    swapped = ~present & (entries != 0)
    assert abs(present.mean() - 0.9) < 0.01 and abs(dirty[present].mean() - 0.5) < 0.01
    assert 0.002 < swapped.mean() < 0.005
    for track in Track:
        rules = Entries(PROFILES[name], track=track)
        cleared = rules.pte_clear_soft_dirty(entries if track == Track.NATIVE else rules.pte_wrprotect(entries))
        writable = (entries & np.uint64(RW)) != 0
        cleared[writable] |= np.uint64(rules.ARM)
        expected = np.where(present, cleared, entries & np.uint64(~rules.SWP_SOFT_DIRTY & (1 << 64) - 1))
        after = entries.copy()
        bulk.clear_refs(after, rules, compiled=compiled)
        assert (after == expected).all()
        assert (after[present & writable] != entries[present & writable]).all()
    words = np.where(present, 1 << PagemapBit.PRESENT | plain.pte_pfn(entries), 0)
    words[swapped] = 1 << PagemapBit.SWAP | plain.swp_type(entries)[swapped] | plain.swp_offset(entries)[swapped] << 5
    marked = np.where(present, dirty, swapped & (plain.pte_swp_soft_dirty(entries) != 0))
    words |= marked.astype(np.uint64) << np.uint64(PagemapBit.SOFT_DIRTY)
    assert (bulk.pagemap(entries, plain, compiled=compiled) == words).all()
    bits = bulk.scan(entries.copy(), plain, compiled=compiled)
    assert (np.unpackbits(bits, bitorder="little") == marked).all()


@pytest.mark.slow
def test_the_process_measured() -> None:
    """One page in ten is not there, some are swapped out, some were written since the last clear."""
    subjects = measure._kernel(1, *np.zeros((2, 8), np.uint64))
    names = [subject.name for subject in subjects]
    assert len(names) == 5 * len(measure._levels()) and len(set(names)) == len(names)
    for subject in subjects:
        if "pagemap" not in subject.name:
            continue
        subject.prepare()
        words = np.frombuffer(subject.run(), np.uint64)  # type: ignore[call-overload]
        told = {bit: ((words >> np.uint64(bit)) & np.uint64(1)).mean() for bit in PagemapBit}
        assert len(words) == subject.entries >= 1 << 19
        assert 0.89 < told[PagemapBit.PRESENT] < 0.91 and 0 < told[PagemapBit.SWAP] < 0.01
        assert 0.01 < told[PagemapBit.SOFT_DIRTY] < 0.02


@pytest.mark.parametrize(
    ("ratio", "limits", "target", "verdict"),
    [
        (4.0, {"most": 4}, "<= 4", "ok"),
        (4.01, {"most": 4}, "<= 4", "missed"),
        (50.0, {"least": 50}, ">= 50", "ok"),
        (49.9, {"least": 50}, ">= 50", "missed"),
        (9.0, {}, None, None),
    ],
)
def test_judged(ratio: float, limits: dict[str, float], target: str | None, verdict: str | None) -> None:
    row = measure._row("a", 1.0, "ns", "b", ratio, **limits)
    assert (row["target"], row["verdict"]) == (target, verdict)


@pytest.mark.slow
def test_targets_of_bulk() -> None:
    """Where numba is installed, of both levels; on arrays, and through the files of /proc."""
    for _ in range(TRIES):
        rows = [row for row in measure.measure(["bulk", "kernel"], None, 0, 1) if row["target"]]
        late = [row for row in rows if row["ratio"] > SLACK * float(row["target"].removeprefix("<= "))]
        if not late:
            break
    assert len(rows) >= 13 and not late


@pytest.mark.slow
def test_target_of_walks_end_to_end() -> None:
    """Stimulus, gateware and verdict, beside the golden model alone on the same walks."""
    library = WalkerLibrary.make()
    for _ in range(TRIES):
        row = measure._whole(library, 1, "ptewalk bench --only cosim --seed 1")
        if row["ratio"] <= SLACK * measure._WHOLE_TARGET:
            break
    assert row["target"] == "<= 4" and row["ratio"] <= SLACK * measure._WHOLE_TARGET


TRANSLATED = {"numpy": ">= 3", "compiled": ">= 8"}


@pytest.mark.thorough
def test_target_of_translation_at_once() -> None:
    """Where numba is installed, of both levels."""
    for _ in range(TRIES):
        rows = measure.measure(["translate"], None, 0, 1)
        if all(SLACK * row["ratio"] >= float(row["target"].removeprefix(">= ")) for row in rows):
            break
    told = {row["name"].removeprefix("translation at once: "): row for row in rows}
    assert "numpy" in told and {name: row["target"] for name, row in told.items()}.items() <= TRANSLATED.items()
    assert all(SLACK * row["ratio"] >= float(row["target"].removeprefix(">= ")) for row in rows)


@pytest.mark.slow
def test_target_of_fills() -> None:
    """The gateware fills the TLB of a program's processor at seven tenths of the golden model's rate and more."""
    lane = WalkerLibrary.make().lane
    for _ in range(TRIES):
        model, gateware, ratio = fill_rates(lane)
        if SLACK * ratio >= LEAST_RATIO:
            break
    assert SLACK * ratio >= LEAST_RATIO == 0.7 and model > 0 and gateware > 0


@pytest.mark.slow
def test_compiled_models_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the lane alone and end to end, which have no target; walks that differ are not measured."""
    monkeypatch.setattr(measure, "_ROUNDS", 3)
    clock, walks = measure.measure(("compiled",), None, 1000, 5)
    assert clock["name"] == "clock, lane alone: CXXRTL" and clock["unit"] == "cycles/s"
    assert walks["name"] == "walks with stimulus and golden model: CXXRTL" and walks["unit"] == "walks/s"
    for row in (clock, walks):
        assert row["baseline"].startswith("Verilator: ") and (row["target"], row["verdict"]) == (None, None)
        assert row["ratio"] > 0.5
    told = WalkerLibrary.randomised
    monkeypatch.setattr(
        WalkerLibrary, "randomised", lambda *given, **how: told(*given, **how) | {"failure": "walk 7 differs"}
    )
    with pytest.raises(ToolError, match="do not agree with the golden model: walk 7 differs"):
        measure.measure(("compiled",), None, 1000, 5)
