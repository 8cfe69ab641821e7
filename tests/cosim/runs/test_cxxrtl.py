"""CXXRTL and Verilator give the same answers in the same cycles: every log of every lane, byte for byte.

The golden side judges what each gives; here they are compared with each other, on work with stalls, errors, slow
memory, a second writer and changes, and with how much there must be at least.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.bench.bridge_lane import BridgeLane
from ptewalk.cosim.bench.caching import CachingConditions
from ptewalk.cosim.bench.caching_lane import CachingLane
from ptewalk.cosim.bench.mmu_engine_lane import MmuEngineLane
from ptewalk.cosim.bench.records import Records
from ptewalk.cosim.checks.caching import random_work
from ptewalk.cosim.checks.mmu_engine_stories import draw_story
from ptewalk.cosim.checks.random_walks import random_batch
from ptewalk.cosim.formats.samples import WALKS
from ptewalk.cosim.runs.bus import CHUNK, bus_library, drawn_conditions
from ptewalk.cosim.runs.caching import caching_library
from ptewalk.cosim.runs.engine_cycles import engine_cycles
from ptewalk.cosim.runs.gateware import WalkerLibrary
from ptewalk.cosim.runs.mmu_engine import built_mmu_engine
from ptewalk.cosim.runs.workers import Chunk
from ptewalk.cosim.stimulus.caches import CacheStory
from ptewalk.rtl.presets import CACHING

pytestmark = pytest.mark.slow


def bytes_of(*logs: Records) -> bytes:
    """Every field of every record; not what lies between fields, which nobody sets."""
    return b"".join(log[name].tobytes() for log in logs for name in log.dtype.names or ())


def walked(simulator: str, seed: int) -> tuple[bytes, int, int]:
    """Ten batches of 300 walks: what they gave and left in memory; clock cycles; accesses to memory."""
    library = WalkerLibrary.make(simulator=simulator)
    told, cycles, accesses = b"", 0, 0
    for number in range(10):
        batch = random_batch(seed, number, 300, library.design)
        result = library.lane.run(batch.requests, batch.memory, batch.interferences, batch.conditions)
        told += bytes_of(result.requests, result.responses, result.translations, result.events, result.faults)
        told += bytes_of(result.written, result.walked) + str(result.counters).encode()
        told += batch.memory.export()[2].tobytes()
        cycles += result.counters.cycles
        accesses += len(result.events)
    return told, cycles, accesses


def test_walks() -> None:
    by_cxxrtl, by_verilator = walked("cxxrtl", 5), walked("verilator", 5)
    assert by_cxxrtl == by_verilator
    assert by_cxxrtl[1] > 50_000 and by_cxxrtl[2] > 10_000
    assert walked("cxxrtl", 6)[0] != by_verilator[0], "other work is told otherwise"


def asked(simulator: str, design: str, seed: int) -> tuple[bytes, str, int]:
    """4,000 accesses to an MMU that caches, in two runs of which the second goes on with the caches of the first."""
    config = CACHING[design]
    lane = CachingLane(caching_library(config, simulator).library)
    told, answers = b"", 0
    try:
        for number in range(2):
            name = f"{seed} {number}"
            conditions = CachingConditions(
                idle=0.1, stalls=0.2, errors=0.003, drains=0.001, latency=2, latency_spread=5, tags=16
            )
            story = CacheStory(name, physical_bits=config.walker.physical_bits, soft_dirty=config.walker.soft_dirty)
            work = random_work(story, 2000, name)
            run = lane.run(work, seed, conditions)
            told += bytes_of(run.events) + work.memory.export()[2].tobytes() + str((run.cycles, run.drains)).encode()
            answers += len(run.events)
    finally:
        lane.close()
    return told, str((run.counters, run.waits)), answers


@pytest.mark.share(4)
@pytest.mark.parametrize("design", ["mmu-small", "mmu", "mmu-fast", "mmu-8walkers"])
def test_accesses(design: str) -> None:
    by_cxxrtl, by_verilator = asked("cxxrtl", design, 5), asked("verilator", design, 5)
    assert by_cxxrtl == by_verilator
    assert by_cxxrtl[2] > 15_000, "events of the log"


def bursts(simulator: str) -> tuple[Any, int]:
    lane = BridgeLane(bus_library(64, simulator).library)
    told = []
    try:
        for number in range(9):  # each kind of conditions
            chunk = Chunk(5, number, CHUNK)
            run = lane.run(500, random.Random(f"bus {number}").getrandbits(64), drawn_conditions(chunk)[1])
            told.append((run.problem, run.counts, bytes_of(run.times)))
    finally:
        lane.close()
    return told, sum(counts["answered"] for _, counts, _ in told)


def commands(simulator: str) -> tuple[Any, int]:
    rows = engine_cycles((4,), simulator)
    return rows, sum(row["cycles"] for row in rows)


def stories(simulator: str) -> tuple[Any, int]:
    lane = MmuEngineLane(built_mmu_engine(simulator=simulator).library)
    told = []
    try:
        for number in range(4):
            area = draw_story(number, 600)
            run = lane.run(area.story)
            told.append((asdict(run), area.story.words.tobytes()))
    finally:
        lane.close()
    return [str(one) for one in told], sum(len(words) for _, words in told)


@pytest.mark.share(3)
@pytest.mark.parametrize(("work", "least"), [(commands, 10_000), (bursts, 4_400), (stories, 100_000)])
def test_bursts_engines_and_stories(work: Callable[[str], tuple[Any, int]], least: int) -> None:
    by_cxxrtl, by_verilator = work("cxxrtl"), work("verilator")
    assert by_cxxrtl == by_verilator
    assert by_cxxrtl[1] >= least


def test_a_program(tmp_path: Path) -> None:
    """One seed, one run: the same walks, faults and cycles."""
    told = {}
    for simulator in ("cxxrtl", "verilator"):
        out = tmp_path / simulator
        done = ptewalk(
            tmp_path,
            "run",
            "--simulator",
            simulator,
            "--seed",
            "1",
            "--stdout",
            str(out),
            "--json",
            "/bin/echo",
            "hello",
        )
        told[simulator] = json.loads(done.stdout)
        assert told[simulator].pop("seconds") > 0 and out.read_text() == "hello\n"
    assert told["cxxrtl"] == told["verilator"]
    assert told["cxxrtl"]["walks"] > 300 and told["cxxrtl"]["cycles"] > 1000


def ptewalk(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("ptewalk"))
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, cwd=folder)


def test_a_defect_of_the_gateware_is_seen(tmp_path: Path) -> None:
    """Recorded walks on CXXRTL: all agree, and with a mutant some do not."""
    found = {}
    for mutant in ((), ("--mutant", "wp-ignored")):
        asked = ("--backend", "gateware", "--simulator", "cxxrtl", "--limit", "300", "--seed", "1", "--json")
        done = ptewalk(tmp_path, "walks", str(WALKS), *asked, *mutant)
        told = json.loads(done.stdout)
        assert told["agree"] + told["differ"] >= 290, done.stderr
        found[bool(mutant)] = done.returncode, bool(told["differ"]), told["simulator"][:7]
    assert found == {False: (0, False, "cxxrtl "), True: (1, True, "cxxrtl ")}
