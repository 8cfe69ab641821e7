"""Rule R1 of cosim/checks/relation.py: which stores the recorded kernels lose, and that nothing else may differ."""

import gzip
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ptewalk.cosim.checks.relation import RelationJudge
from ptewalk.cosim.checks.replay import ReplayJob, replay_model
from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.cosim.runs.scenarios import replay_gateware
from ptewalk.model.linux import Track

CLOSED = {"linux-seed": 0, "linux-3.11": 0, "linux-6.1": 17, "linux-6.12": 17, "linux-6.18": 0, "linux-7.3": 0}
"""Pages and steps after a store that the kernel lost: shared mappings' entries, writable and never marked.

`test_the_count_is_the_recordings` counts them in the recordings alone. (What mprotect of 3.11 drops again was marked.)
"""
STEPS = {
    "linux-seed": 355,
    "linux-3.11": 336,
    "linux-6.1": 601,
    "linux-6.12": 744,
    "linux-6.18": 385,
    "linux-7.3": 1974,
}
"""Steps of each sample: every one of them is compared."""
CHANGES_MAPPINGS = ("mmap", "munmap", "mremap", "madvise")


def lost_stores(profile: str) -> int:
    """Present pages outside hugetlb that the recording shows clean after a store since the last clear, by step."""
    lost, stored = 0, defaultdict(set)
    with gzip.open(KERNELS[profile], "rt") as lines:
        for record in map(json.loads, lines):
            if record["t"] == "scenario":
                stored.clear()
                hugetlb = "hugetlb" in record["name"]
                continue
            op = record["op"]
            pages = range(op.get("page") or 0, (op.get("page") or 0) + (op.get("n") or 0), op.get("step") or 1)
            if op["op"] == "clear_refs" and op["value"].strip() == "4" and record["errno"] is None:
                stored[op["target"]].clear()
            elif op["op"] == "write":
                answers = zip(pages, record["vals"], strict=True)
                stored[op["who"]].update(page for page, answer in answers if answer == "ok")
            elif op["op"] in CHANGES_MAPPINGS:
                for known in stored.values():
                    known.difference_update(pages)
            for who, state in record["state"].items():
                for first, count, flags, *_ in state["pages"] or []:
                    if "P" in flags and "D" not in flags and not hugetlb:
                        lost += len(stored[int(who)] & set(range(first, first + count)))
    return lost


@pytest.mark.parametrize("profile", ["linux-6.1", "linux-6.12"])
def test_the_count_is_the_recordings(profile: str) -> None:
    assert lost_stores(profile) == CLOSED[profile]


@pytest.mark.thorough
@pytest.mark.parametrize("track", ["fault", "native"])
@pytest.mark.parametrize("profile", KERNELS)
def test_lost_stores_are_closed(profile: str, track: str) -> None:
    result = replay_model(ReplayJob((str(KERNELS[profile]),), profile, track))
    assert (result["agree"], result["differ"], result["closed"]) == (STEPS[profile], 0, CLOSED[profile])


@pytest.mark.thorough
@pytest.mark.parametrize("profile", KERNELS)
def test_a_plain_mmu_closes_nothing(profile: str) -> None:
    result = replay_model(ReplayJob((str(KERNELS[profile]),), profile, "off"))
    assert (result["agree"], result["differ"], result["closed"]) == (STEPS[profile], 0, 0)


@pytest.mark.slow
def test_the_gateware_closes_the_same() -> None:
    jobs = [ReplayJob((str(KERNELS["linux-6.12"]),), "linux-6.12", track) for track in ("fault", "native")]
    for result in replay_gateware(jobs, None):
        told = (result["agree"], result["differ"], result["closed"])
        assert told == (STEPS["linux-6.12"], 0, CLOSED["linux-6.12"])
        assert result["events"] > 4000
        assert result["counters"]["marks"] > 0


def test_a_store_through_get_user_pages_is_closed() -> None:
    """/proc/PID/mem and read(2) into shared pages that are writable and clean: the seed's kernel marks nothing."""
    path = str(Path(__file__).parents[2] / "data" / "gup-linux-seed.jsonl")
    found = {track: replay_model(ReplayJob((path,), "linux-seed", track)) for track in ("off", "native")}
    assert [(result["agree"], result["differ"]) for result in found.values()] == [(7, 0), (7, 0)]
    assert [result["closed"] for result in found.values()] == [0, 3]


@pytest.mark.parametrize(
    ("captured", "expected", "stored", "allowed"),
    [
        (("PWD", 1), ("PW", 1), "user", True),
        (("PWD", 1), ("PW", 1), "kernel", True),
        (("PWD", 1), ("PW", 1), "", False),
        (("PW", 1), ("PWD", 1), "user", False),
        (("PWD", 1), ("P", 1), "user", False),
        (("PWD", 1), ("PW", 2), "user", False),
        (("D",), None, "user", True),
        (("PD",), None, "user", False),
        (None, ("PW", 1), "user", False),
    ],
)
def test_only_a_page_that_was_stored_to_may_read_soft_dirty(
    captured: tuple[Any, ...] | None, expected: tuple[Any, ...] | None, stored: str, allowed: bool
) -> None:
    """Rule R1, case by case: D more than recorded, and nothing else, after a store by the user or the kernel."""
    places = {"user": {0x107}, "kernel": set(), "": {0x108}}[stored]
    mm = SimpleNamespace(stored=places, gup_stored={0x107} if stored == "kernel" else set())
    kernel = SimpleNamespace(track=Track.FAULT, base=0x100, processes={3: SimpleNamespace(mm=mm)})
    judge = RelationJudge()
    legal = judge.allowed(SimpleNamespace(kernel=kernel))  # type: ignore[arg-type]
    assert legal(3, 7, captured, expected) is allowed
    assert judge.closed == allowed
