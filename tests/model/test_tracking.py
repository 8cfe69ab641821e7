"""The three ways of tracking against each other, over random scenarios: what they report, what stores they miss."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ptewalk.cosim.formats.scenarios import as_scenario
from ptewalk.cosim.stimulus.scenarios import scenario as drawn
from ptewalk.model.linux import Track
from ptewalk.model.proc import pagemap
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.format import Scenario
from ptewalk.model.scenario.replay import Replay

THEMES = ("merge", "anon", "move", "table", "none", "huge", "fork", "file", "swap")
SOFT_DIRTY, EXCLUSIVE = 1 << 55, 1 << 56


def scenarios(count: int, seed: int, themes: tuple[str, ...] = THEMES) -> Iterator[Scenario]:
    for i in range(count):
        yield as_scenario(drawn(seed, i, themes[i % len(themes)]))


def missed(run: Replay) -> list[tuple[int, int]]:
    """Pages that were stored to since the last clear and do not read soft-dirty: (process, page)."""
    found = []
    for who, process in run.kernel.processes.items():
        for vma in process.mm.areas:
            for start, end in process.mm.stored.within(vma.start, vma.end):
                words = pagemap.read(process.mm, start, end - start).tolist()
                found += [(who, start + i) for i, word in enumerate(words) if not word & SOFT_DIRTY]
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("track", [Track.FAULT, Track.NATIVE])
@pytest.mark.parametrize("profile", ["linux-6.1", "linux-6.12"])
def test_no_store_of_private_memory_is_missed(profile: str, track: Track) -> None:
    steps = stored = 0
    for scenario in scenarios(70, 300, ("merge", "anon", "move", "table", "none", "huge")):
        run = Replay(scenario, PROFILES[profile], track=track, watch=True)
        for index in range(len(scenario.steps)):
            run.step()
            steps += 1
            stored += sum(len(process.mm.stored) for process in run.kernel.processes.values())
            lost = [
                (who, at)
                for who, at in missed(run)
                if not (vma := run.kernel.processes[who].mm.areas.lookup(at)) or vma.file is None
            ]
            assert lost == [], f"{scenario.name} step {index}"
    assert steps > 500 and stored > 1000


@pytest.mark.thorough
@pytest.mark.parametrize("track", [Track.FAULT, Track.NATIVE])
@pytest.mark.parametrize("profile", ["linux-seed", "linux-3.11", "linux-6.1", "linux-6.12"])
def test_tracking_changes_nothing_else_that_a_user_sees(profile: str, track: Track) -> None:
    """Answers and pagemap are those of `off`, but for marks of pages that were stored to."""
    marks = 0
    for scenario in scenarios(90, 600):
        plain = Replay(scenario, PROFILES[profile], raw_tables=False)
        tracked = Replay(scenario, PROFILES[profile], track=track, raw_tables=False)
        for index in range(len(scenario.steps)):
            one, two = plain.step(), tracked.step()
            where = f"{scenario.name} step {index}"
            assert (one.ret, one.errno, one.vals) == (two.ret, two.errno, two.vals), where
            for who, process in plain.kernel.processes.items():
                assert one.state[who].vmas == two.state[who].vmas, where
                other = tracked.kernel.processes[who]
                for vma in process.mm.areas:
                    size = min(vma.end - vma.start, 4096)
                    words = pagemap.read(process.mm, vma.start, size).tolist()
                    seen = pagemap.read(other.mm, vma.start, size).tolist()
                    for offset, (word, extra) in enumerate(zip(words, seen, strict=True)):
                        if word != extra:
                            assert extra == word | SOFT_DIRTY, f"{where} page {vma.start + offset:#x}"
                            assert vma.start + offset in other.mm.stored, where
                            marks += 1
    assert marks or profile in ("linux-6.1", "linux-6.12")


@pytest.mark.thorough
@pytest.mark.parametrize("track", [Track.FAULT, Track.NATIVE])
def test_armed_entries_keep_their_invariant(track: Track) -> None:
    """ARM implies P=1, RW=0, no uffd-wp, and an exclusive or shared page; `native` has none."""
    arm, seen = 1 << 52, 0
    for scenario in scenarios(60, 900):
        run = Replay(scenario, PROFILES["linux-6.1"], track=track)
        for _ in scenario.steps:
            run.step()
            frames = run.kernel.frames
            for process in run.kernel.processes.values():
                for vma in process.mm.areas:
                    for piece in process.mm.tables.pieces(vma, vma.start, vma.end):
                        entries = [piece.leaf]
                        if not piece.leaf:
                            entries = process.mm.tables.part(piece.first, piece.last).tolist()
                        for entry in entries:
                            if not entry & arm or not run.kernel.entries.pte_present(entry):
                                continue  # bit 52 of a swap entry belongs to the slot's number
                            seen += 1
                            assert entry & 0x403 == 1
                            frame = run.kernel.entries.pte_pfn(entry, piece.level)
                            assert vma.flags & 8 or frames.flags[frame] & 2
    assert bool(seen) == (track == Track.FAULT)
