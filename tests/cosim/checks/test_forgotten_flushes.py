"""For each verb that makes an MMU forget: without that, the MMU with a TLB answers as it must not.

A verb's own flush is left out, in its steps alone. Then a recording, or a scenario made by hand, must show a stale
translation: by an answer, by a word of memory, or when what was accessed last is asked about again after the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.checks.caching_performances import Caches
from ptewalk.cosim.checks.driven import Engines
from ptewalk.cosim.checks.lockstep import LockstepJudge
from ptewalk.cosim.formats.scenarios import without_answers
from ptewalk.cosim.runs.caching_library import CachingLibrary
from ptewalk.model.linux import Track
from ptewalk.model.mmu import ModelMmu
from ptewalk.model.profiles import NAMED
from ptewalk.model.scenario.format import Scenario, read
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.verbs import Unsupported

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[2] / "data"
KERNELS = ("linux-6.12", "linux-3.11")
UNOBSERVABLE = {
    "swapoff": "what it rewrites was not present before it, so nothing of it is cached",
}
"""Verb to why no access can tell whether it makes the MMU forget."""


def op(name: str, page: int = 0, n: int = 4, who: int = 0, **more: Any) -> dict[str, Any]:
    return {"op": name, "who": who, "page": page, "n": n, **more}


def alone(name: str, who: int = 0, **more: Any) -> dict[str, Any]:
    return {"op": name, "who": who, **more}


MMAP = op("mmap", prot="rw", kind="anon")
WHOLE_POOL = op("mmap", n=4096, prot="rw", kind="hugetlb")
FILLED_POOL = [WHOLE_POOL, *(op("write", page, 1) for page in range(0, 4096, 512))]
HAND_MADE: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "clearraw": ("linux-6.12", [MMAP, op("write"), alone("clearraw", value="4")]),
    "exit": (
        "linux-6.12",
        [
            *(MMAP, op("write"), alone("fork", child=1), op("write", who=1), alone("exit", who=1)),
            *(op("munmap"), alone("fork", child=2)),
        ],
    ),
    "mem_write": ("linux-6.12", [MMAP, op("read"), op("mem_write")]),
    "mlock": ("linux-3.11", [MMAP, op("read"), op("mlock")]),
    "pin": ("linux-6.12", [MMAP, op("read"), op("pin")]),
    "pagemap_scan": (
        "linux-6.12",
        [
            *(alone("uffd_async_open"), MMAP, op("uffd_async_reg"), op("write")),
            op("pagemap_scan", flags=1, category_mask=2, return_mask=2),
        ],
    ),
    "same": ("linux-6.1", [*FILLED_POOL, alone("fork", child=1), op("read", 0, 8, who=1), op("same", 0, 1)]),
    "syscall_read_into": (
        "linux-6.1",
        [*FILLED_POOL, alone("fork", child=1), op("read", 0, 8, who=1), alone("syscall_read_into", page=0)],
    ),
    "uffd_async_unreg": (
        "linux-6.12",
        [
            *(op("mmap", prot="rw", kind="s0", flags=["populate"]), alone("uffd_async_open"), op("uffd_async_reg")),
            *(op("write"), op("uffd_async_unreg"), op("write")),
        ],
    ),
    "uffd_async_wp": (
        "linux-6.12",
        [alone("uffd_async_open"), MMAP, op("uffd_async_reg"), op("write"), op("uffd_async_wp")],
    ),
    "write": ("linux-6.1", [*FILLED_POOL, alone("fork", child=1), op("read", 0, 8, who=1), op("write", 0, 1)]),
}
"""Verb to a kernel, and steps that end in its stale translation."""


@lru_cache(maxsize=1)
def library() -> CachingLibrary:
    return CachingLibrary.make()


def by_hand(verb: str) -> tuple[str, Scenario]:
    kernel, steps = HAND_MADE[verb]
    header = {"name": f"hand_{verb}", "base": "0x100000000000"}
    return kernel, without_answers([header, *({"op": step} for step in steps)])


def recorded(verb: str) -> Iterator[tuple[str, Scenario]]:
    for kernel in KERNELS:
        for scenario in read(DATA / f"own-{kernel}.jsonl.gz"):
            if any(step.op["op"] == verb for step in scenario.steps):
                yield kernel, scenario


def differences(kernel: str, scenario: Scenario, forgets: str | None) -> Sequence[object]:
    """What differs first from the golden model on the MMU with a TLB, with the flush of the verb `forgets` left out."""
    profile, exact = NAMED[kernel]
    caches = Caches(library().lane, library().design, None, Engines(None, None))
    judge = LockstepJudge(watch=caches.watch)
    run = Replay(scenario, profile, track=Track.OFF, exact=exact, mmu=caches.mmu, raw_tables=False)
    judge.begin(run)
    machine: Any = run.kernel
    forget = machine.forget
    for index, step in enumerate(scenario.steps):
        machine.forget = machine.stale.take if step.op["op"] == forgets else forget
        try:
            outcome = run.step()
        except Unsupported:
            break
        finally:
            machine.forget = forget
        found = judge.golden_side(run, index, outcome)
        if found:
            return found
    return []


class _Told(ModelMmu):
    told = False

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        self.told = True


RECORDINGS = [
    (kernel, path)
    for kernel in NAMED
    for path in sorted(DATA.glob(f"*-{kernel}.jsonl*"))
    if path.suffix in (".gz", ".jsonl")
]
"""A kernel, and each recording of it."""


def flushing() -> set[str]:
    """Verbs of any recording that made the MMU forget something."""
    verbs = set()
    for kernel, path in RECORDINGS:
        profile, exact = NAMED[kernel]
        for scenario in read(path):
            run = Replay(scenario, profile, exact=exact, mmu=_Told, raw_tables=False)
            machine: Any = run.kernel
            for step in scenario.steps:
                machine.mmu.told = False
                try:
                    run.step()
                except Unsupported:
                    break
                if machine.mmu.told:
                    verbs.add(str(step.op["op"]))
    return verbs


RECORDED = (
    *("clear_refs", "fork", "ftruncate", "ksm", "ksm_scan", "madvise", "mmap", "move_pages", "mprotect", "mremap"),
    *("munmap", "pkey_mprotect", "remapfile", "sync", "uffd_wp"),
)
"""Verbs that the own recordings show."""


def test_every_verb_that_flushes_is_here() -> None:
    assert len(UNOBSERVABLE) <= 2 and len(RECORDINGS) >= 23
    assert flushing() - {*HAND_MADE} == {*RECORDED, *UNOBSERVABLE}


@pytest.mark.parametrize("verb", RECORDED)
def test_shown_by_a_recording(verb: str) -> None:
    assert any(differences(kernel, scenario, verb) for kernel, scenario in recorded(verb))


@pytest.mark.parametrize("verb", HAND_MADE)
def test_shown_by_hand(verb: str) -> None:
    kernel, scenario = by_hand(verb)
    assert differences(kernel, scenario, None) == []
    assert differences(kernel, scenario, verb)


@pytest.mark.parametrize("verb", UNOBSERVABLE)
def test_unobservable(verb: str) -> None:
    """So it is at least in the recordings."""
    found = list(recorded(verb))
    assert len(found) >= 2
    assert not any(differences(kernel, scenario, verb) for kernel, scenario in found)
