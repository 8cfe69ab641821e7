"""Inside the simulator: a walker driven through recorded walks, random walks, and walks that are timed.

Started by cosim/runs/gateware.py through `run_test`; each test publishes what it counted.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import cocotb
import numpy as np

from ptewalk.cosim.bench.lane import BatchResult, BenchError, Conditions, Stalls
from ptewalk.cosim.bench.records import (
    INTERFERENCE,
    Records,
    SecondWriter,
    decode,
    encode_requests,
    encode_result,
    merge_tags,
    relevant,
    state_and_request,
)
from ptewalk.cosim.bench.scoreboard import Scoreboard, ScoreboardError
from ptewalk.cosim.bench.walker import WalkerBench
from ptewalk.cosim.checks.walks import WalkTally, check
from ptewalk.cosim.formats.walks import read_walks, table_words
from ptewalk.cosim.simulate.run import Job
from ptewalk.cosim.stimulus.walks import Walk, random_walk
from ptewalk.model import linux, x86
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State, translate

_DISTURBED: tuple[int, ...] = (
    *(x86.EntryBit.P, x86.EntryBit.RW, x86.EntryBit.US, x86.EntryBit.A, x86.EntryBit.A, x86.EntryBit.D),
    *(x86.EntryBit.XD, x86.EntryBit.PS, linux.SoftBit.SOFT_DIRTY, linux.SoftBit.ARM, linux.SoftBit.SAVED_DIRTY),
    *(x86.FRAME_LOW, x86.PKEY_LOW, linux.SoftBit.SPECIAL),
)
"""Bits that the second writer flips."""


def _conditions(rng: random.Random) -> Conditions:
    """A latency and a set of stalls of their own."""
    chance = rng.choice((0.0, 0.0, 0.2, 0.6))
    stalls = Stalls(*(chance * rng.random() for _ in range(4)))
    return Conditions(latency=rng.choice((1, 1, 2, 3, 7, 16)), stalls=stalls, seed=rng.getrandbits(64))


@cocotb.test()
async def recorded(dut: Any) -> None:
    """Recorded walks, one at a time, each in tables of its own."""
    job = Job.current()
    cases = read_walks(job.values["file"])
    chosen = job.values["indices"]
    memory = SparseMemory(job.values["physical_bits"])
    bench = WalkerBench(dut, memory, Conditions(linger=4, max_cycles=2000))
    await bench.start()
    tally = WalkTally()
    for case in cases if chosen is None else [cases[index] for index in chosen]:
        memory.words[:] = 0
        frames = case.table_frames()
        for frame in frames:
            memory.add_frame(frame)
        for address, value in case.entries:
            memory.store(address, value)
        try:
            result = await bench.batch(encode_requests([(case.state(), case.request())], [0]))
        except BenchError as error:
            tally.add(case, str(error))
            await bench.start()
            continue
        tally.add(case, check(case, decode(result.responses[0]), table_words(memory, frames)))
    job.publish({"tally": tally.as_json(), "compiled": bench.has_batch_level})


def _disturb(rng: random.Random, walks: list[Walk], memory: SparseMemory) -> Records:
    """Writes by a second writer: to an entry right after the walk has read it, or to any of the walk's at any time."""
    rows = []
    for number, walk in enumerate(walks):
        if rng.random() > 0.4 or not walk.entries:
            continue
        for _ in range(rng.choice((1, 1, 2, 3))):
            after = rng.randint(1, 6)
            address, value = walk.entries[min(after, len(walk.entries)) - 1]
            if rng.random() < 0.3:
                address, value = rng.choice(walk.entries)
            for _ in range(rng.choice((1, 1, 1, 2))):
                value ^= 1 << rng.choice(_DISTURBED)
            if address >> x86.PAGE_SHIFT in memory.row_of_frame:
                rows.append((address, value, number, after))
    return np.array(rows, INTERFERENCE)


def _random_batch(
    rng: random.Random, count: int, physical_bits: int, soft_dirty: bool
) -> tuple[list[Walk], SparseMemory]:
    """`count` walks in one memory; some tables are missing, so that their reads end in a bus error."""
    tracks = tuple(linux.Track) if soft_dirty else (linux.Track.OFF,)
    used: set[int] = set()
    walks = [random_walk(rng, physical_bits=physical_bits, tracks=tracks, used=used) for _ in range(count)]
    if not soft_dirty:
        walks = [replace(walk, state=replace(walk.state, soft_dirty=False)) for walk in walks]
    memory = SparseMemory(physical_bits, strict=True)
    for walk in walks:
        memory.add_frame(walk.state.root >> x86.PAGE_SHIFT)
        missing = rng.choice(walk.entries)[0] >> x86.PAGE_SHIFT if walk.entries and rng.random() < 0.03 else -1
        for address, value in walk.entries:
            if address >> x86.PAGE_SHIFT != missing:
                memory.add_frame(address >> x86.PAGE_SHIFT)
                memory.store(address, value)
    return walks, memory


def _expect(
    result: BatchResult, before: SparseMemory, interferences: Records, design: dict[str, Any]
) -> tuple[Records, SecondWriter]:
    """What the golden model answers to the requests that the monitor saw, and the memory it leaves."""
    writer = SecondWriter(before, interferences)
    results = []
    for index, row in enumerate(result.requests):
        writer.begin(index)
        results.append(translate(writer, *state_and_request(row, **design)))
    return merge_tags(encode_result(results), result.requests), writer


def _compare_memory(seen: SparseMemory, expected: SparseMemory) -> tuple[int, list[str]]:
    """Words compared, and the differing ones in one line each."""
    lines = []
    for frame, row in expected.row_of_frame.items():
        other = seen.frame(frame)
        for word in np.flatnonzero(other != expected.words[row]).tolist():
            address = (frame << x86.PAGE_SHIFT) + word * x86.ENTRY_BYTES
            wanted = int(expected.words[row][word])
            lines.append(f"word at {address:#x}: captured {int(other[word]):#x}, expected {wanted:#x}")
    return len(expected.row_of_frame) * x86.TABLE_ENTRIES, lines


@cocotb.test()
async def randomised(dut: Any) -> None:
    """Random tables and accesses in every way to track, with a second writer, against the golden model.

    Both levels of the testbench can run it; `protocol_walks` of them run at the protocol level whatever there is, so
    that the two rates stand in one run. Each batch has chance of its own, so that it can be repeated alone, with waves.
    """
    job = Job.current()
    walks_wanted, protocol_walks = job.values["walks"], job.values["protocol_walks"]
    seed, batch, whole = job.values["seed"], job.values["batch"], job.values["whole_batches"]
    scoreboard = Scoreboard("walks", promised=walks_wanted, repeat=job.values["repeat"])
    shown = ""  # the command that shows the waves of the batch
    bench = WalkerBench(dut, SparseMemory(job.values["physical_bits"]))
    design = {name: job.values[name] for name in ("levels", "gigabyte_pages")} | {"soft_dirty": bench.soft_dirty}
    await bench.start()
    done = {True: [0, 0.0, 0], False: [0, 0.0, 0]}  # by compiled: walks, seconds, cycles
    outcomes = dict.fromkeys((outcome.name for outcome in x86.Outcome), 0)
    totals = {"failed_swaps": 0, "swaps": 0, "foreign_writes": 0, "words": 0}
    differing: list[str] = []
    failure = ""
    started = time.perf_counter()
    remaining = walks_wanted
    try:
        while remaining:
            compiled = bench.has_batch_level and remaining > protocol_walks
            size = min(remaining - protocol_walks if compiled else remaining, 2000 if compiled else 200)
            size = remaining if whole else size
            remaining -= size
            rng = random.Random(f"{seed} {batch}")
            shown = (
                f"waves: ptewalk waves --seed {seed} --batch {batch} --walks {size} --simulator {job.values['name']}"
            )
            batch += 1
            walks, memory = _random_batch(rng, size, bench.physical_bits, bench.soft_dirty)
            interferences = _disturb(rng, walks, memory)
            before = memory.copy()
            bench.use(memory)
            result = await bench.batch(
                encode_requests((walk.state, walk.request) for walk in walks),
                interferences=interferences,
                conditions=_conditions(rng),
                compiled=compiled,
            )
            expected, writer = _expect(result, before, interferences, design)
            scoreboard.compare(relevant(result.responses), relevant(expected), result.requests)
            words, lines = _compare_memory(memory, before)
            totals["words"] += words
            differing += lines
            if result.counters.foreign_writes != writer.writes:
                differing.append(f"second writer: {result.counters.foreign_writes} writes, expected {writer.writes}")
            for name in ("failed_swaps", "swaps", "foreign_writes"):
                totals[name] += getattr(result.counters, name)
            for outcome in x86.Outcome:
                outcomes[outcome.name] += int((result.responses["outcome"] == outcome).sum())
            tallied = done[result.compiled]
            tallied[0] += size
            tallied[1] += result.seconds
            tallied[2] += result.counters.cycles
            if differing or scoreboard.mismatches:
                break
        scoreboard.finish()
        if not totals["failed_swaps"]:
            failure = "no swap ever failed: the second writer was not seen"
    except (ScoreboardError, BenchError) as error:
        failure = f"{error}\nrepeat: {job.values['repeat']}" if isinstance(error, BenchError) else str(error)
        failure += f"\n{shown}"
    if differing:
        failure = "\n".join([failure, f"{len(differing)} words of memory differ:", *differing[:5]]).strip()
        if "repeat:" not in failure:
            failure += f"\nrepeat: {job.values['repeat']}\n{shown}"
    job.publish(
        {
            "comparisons": scoreboard.comparisons,
            "mismatches": scoreboard.mismatches + len(differing),
            "failure": failure,
            "outcomes": outcomes,
            "rates": {
                "batch": {"walks": done[True][0], "seconds": done[True][1], "cycles": done[True][2]},
                "protocol": {"walks": done[False][0], "seconds": done[False][1], "cycles": done[False][2]},
            },
            "seconds": time.perf_counter() - started,
            **totals,
        }
    )


def _timed_walk(levels: int, leaf: int) -> tuple[SparseMemory, State, int]:
    """Tables with A set in all entries but for `leaf`'s flags: memory, control state, linear address."""
    memory = SparseMemory()
    linear = 0x0000_5A5A_7654_3210 & -8
    upper = sum(1 << bit for bit in (x86.EntryBit.P, x86.EntryBit.RW, x86.EntryBit.US, x86.EntryBit.A))
    for level in range(levels, 0, -1):
        index = linear >> x86.LEVEL_SHIFT[level] & x86.TABLE_ENTRIES - 1
        value = (0x100 + level - 1) << x86.PAGE_SHIFT | (upper if level > 1 else leaf)
        memory.store((0x100 + level << x86.PAGE_SHIFT) + index * x86.ENTRY_BYTES, value)
    control = 1 << x86.Control.LA57 if levels == x86.LEVELS_5 else 0
    return memory, State(root=0x100 + levels << x86.PAGE_SHIFT, control=control), linear


@cocotb.test()
async def timed(dut: Any) -> None:
    """Cycles from a request's acceptance to its response, without stalls."""
    job = Job.current()
    bit, soft = x86.EntryBit, linux.SoftBit
    clean = sum(1 << b for b in (bit.P, bit.RW, bit.US, bit.A, bit.D))
    armed = clean & ~(1 << bit.RW) | 1 << soft.ARM
    plain = [
        ("walk4", 4, clean, x86.Access.READ, linux.Track.OFF),
        ("walk5", 5, clean, x86.Access.READ, linux.Track.OFF),
    ]
    marks = [
        ("first write after clear: off", 4, clean & ~(1 << bit.RW), x86.Access.WRITE, linux.Track.OFF),
        ("first write after clear: fault", 4, armed, x86.Access.WRITE, linux.Track.FAULT),
        ("first write after clear: native", 4, clean, x86.Access.WRITE, linux.Track.NATIVE),
    ]
    bench = WalkerBench(dut, SparseMemory())
    await bench.start()
    rows = []
    for name, levels, leaf, access, track in plain + (marks if bench.soft_dirty else []):
        for latency in job.values["latencies"]:
            memory, state, linear = _timed_walk(levels, leaf)
            bench.use(memory)
            asked = encode_requests([(replace(state, track=track), Request(linear, access))], [0])
            result = await bench.batch(asked, conditions=Conditions(latency=latency))
            answer = result.responses[0]
            rows.append(
                {
                    "name": name,
                    "latency": latency,
                    "cycles": int(answer["cycles"]),
                    "outcome": x86.Outcome(int(answer["outcome"])).name,
                    "swaps": result.counters.swaps,
                }
            )
    job.publish({"rows": rows})
