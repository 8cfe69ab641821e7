"""What can be run on a lane, by name: each takes plain values and gives plain results.

So the same runs in this process, on a model as a library, and in a simulator's process, at either of its levels.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

from ptewalk.cosim.bench.conditions import BatchResult, BenchError, Conditions, Counters, random_conditions
from ptewalk.cosim.bench.lane import Lane
from ptewalk.cosim.bench.mmu import GatewareMmu, MmuNotes
from ptewalk.cosim.bench.records import decode, encode_requests
from ptewalk.cosim.bench.scoreboard import Scoreboard, ScoreboardError
from ptewalk.cosim.checks.driven import Engines, check_all, replay_all
from ptewalk.cosim.checks.golden import Golden, compare_responses
from ptewalk.cosim.checks.lockstep import LockstepJudge, LogWatch
from ptewalk.cosim.checks.random_walks import Judge, random_batch
from ptewalk.cosim.checks.served import ServedState
from ptewalk.cosim.checks.shadow import Shadow
from ptewalk.cosim.checks.walks import WalkTally, check
from ptewalk.cosim.formats.walks import read_walks, table_words
from ptewalk.model import linux, x86
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import ModelMmu
from ptewalk.model.paging import Request, State
from ptewalk.rtl.description import DesignDescription

__all__ = ["PERFORMANCES", "Left", "Performance", "left_behind"]

Performance = Callable[[dict[str, Any], Lane, DesignDescription], dict[str, Any]]

_RECORDED: Final = Conditions(linger=4, max_cycles=20_000)


def recorded(values: dict[str, Any], lane: Lane, design: DesignDescription) -> dict[str, Any]:
    """Recorded walks of `file` (those of `indices`), one at a time, each in tables of its own.

    With `seed` each walk has conditions of its own. Gives `WalkTally.as_json`, with `events` and `traced` of `Verdict`.
    """
    machine = {name: design.parameters[name] for name in ("physical_bits", "gigabyte_pages")}
    cases = read_walks(values["file"], **machine)
    chosen, seed = values["indices"], values.get("seed")
    memory = SparseMemory(design.parameters["physical_bits"])
    golden = Golden(design)
    tally = WalkTally()
    events = traced = 0
    for index in range(len(cases)) if chosen is None else chosen:
        case = cases[index]
        memory.words[:] = 0
        frames = case.table_frames()
        for frame in frames:
            memory.add_frame(frame)
        for address, value in case.entries:
            memory.store(address, value)
        conditions = _RECORDED
        if seed is not None:
            conditions = random_conditions(random.Random(f"{seed} walk {index}"), errors=False)
        try:
            result = lane.run(encode_requests([(case.state(), case.request())], [0]), memory, None, conditions)
        except BenchError as error:
            tally.add(case, str(error))
            continue
        verdict = golden.judge(result, physical_bits=memory.physical_bits)
        compare_responses(result, verdict)
        events += verdict.events
        traced += verdict.traced
        found = check(case, decode(result.responses[0]), table_words(memory, frames))
        tally.add(case, found or (verdict.differences[0] if verdict.differ else None))
    return {"tally": tally.as_json(), "events": events, "traced": traced}


def randomised(values: dict[str, Any], lane: Lane, design: DesignDescription) -> dict[str, Any]:
    """Random tables and accesses in every way to track, with a second writer, against the golden model.

    `chunks` are (number, size) of batches of `seed`. `failure` is in words, "" for none; `repeat` stands in it, and the
    command that shows the waves of the batch, for the simulator (and mutant) `name`.
    """
    seed, chunks = values["seed"], values["chunks"]
    promised = sum(size for _, size in chunks)
    judge = Judge(Scoreboard("walks", promised=promised, repeat=values["repeat"]), design)
    shown = failure = ""  # the command that shows the waves of the batch
    walks, seconds, cycles = 0, 0.0, 0
    started = time.perf_counter()
    try:
        for number, size in chunks:
            shown = f"waves: ptewalk waves --seed {seed} --batch {number} --walks {size} --simulator {values['name']}"
            batch = random_batch(seed, number, size, design)
            result = lane.run(batch.requests, batch.memory, batch.interferences, batch.conditions)
            judge.add(batch, result)
            walks, seconds, cycles = walks + size, seconds + result.seconds, cycles + result.counters.cycles
            if judge.failed:
                break
        judge.scoreboard.finish()
    except BenchError as error:
        failure = f"{error}\nrepeat: {values['repeat']}"
    except ScoreboardError as error:
        failure = str(error)
    if judge.differ:
        few = judge.differences[:5]
        failure = "\n".join([failure, f"{judge.differ} differ beside the responses:", *few]).strip()
        if "repeat:" not in failure:
            failure += f"\nrepeat: {values['repeat']}"
    if failure:
        failure += f"\n{shown}"
    return {
        "comparisons": judge.scoreboard.comparisons,
        "mismatches": judge.scoreboard.mismatches + judge.differ,
        "failure": failure,
        "rate": {"walks": walks, "seconds": seconds, "cycles": cycles},
        "seconds": time.perf_counter() - started,
        **judge.as_json(),
    }


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


def timed(values: dict[str, Any], lane: Lane, design: DesignDescription) -> dict[str, Any]:
    """Cycles from a request's acceptance to its response, without stalls, at each of `latencies`."""
    bit, soft = x86.EntryBit, linux.SoftBit
    clean = sum(1 << b for b in (bit.P, bit.RW, bit.US, bit.A, bit.D))
    armed = clean & ~(1 << bit.RW) | 1 << soft.ARM
    subjects = [
        ("walk4", 4, clean, x86.Access.READ, Track.OFF),
        ("walk5", 5, clean, x86.Access.READ, Track.OFF),
    ]
    if design.parameters["soft_dirty"]:
        subjects += [
            ("first write after clear: off", 4, clean & ~(1 << bit.RW), x86.Access.WRITE, Track.OFF),
            ("first write after clear: fault", 4, armed, x86.Access.WRITE, Track.FAULT),
            ("first write after clear: native", 4, clean, x86.Access.WRITE, Track.NATIVE),
        ]
    golden = Golden(design)
    rows = []
    for name, levels, leaf, access, track in subjects:
        for latency in values["latencies"]:
            memory, state, linear = _timed_walk(levels, leaf)
            before = Shadow.of(memory)
            asked = encode_requests([(replace(state, track=track), Request(linear, access))], [0])
            result = lane.run(asked, memory, None, Conditions(latency=latency))
            verdict = golden.judge(result, physical_bits=memory.physical_bits, shadow=before, memory=memory)
            compare_responses(result, verdict)
            answer = result.responses[0]
            rows.append(
                {
                    "name": name,
                    "latency": latency,
                    "cycles": int(answer["cycles"]),
                    "outcome": x86.Outcome(int(answer["outcome"])).name,
                    "swaps": result.counters.swaps,
                    "differs": verdict.differences[0] if verdict.differ else None,
                }
            )
    return {"rows": rows}


class _Walks:
    """A walker, or an MMU without caches, as `driven.Driven`."""

    def __init__(
        self,
        lane: Lane,
        design: DesignDescription,
        seed: int | None,
        engines: Engines,
        notes: MmuNotes | None = None,
    ) -> None:
        self._lane, self._seed, self._notes, self._engines = lane, seed, notes, engines
        self._tags = min(256, 1 << design.parameters["tag_bits"])
        self._counters = Counters()
        self.watch = LogWatch(design, engines.take)

    def mmu(self, memory: SparseMemory) -> GatewareMmu:
        """As `Driven.mmu`."""
        given: dict[str, Any] = {"seed": self._seed, "watch": self._see, "tags": self._tags}
        return GatewareMmu(self._lane, memory, self._counters, engine=self._engines.of(memory), **given)

    def told(self) -> dict[str, Any]:
        """As `Driven.told`."""
        return {"events": self.watch.events, "traced": self.watch.traced, "counters": asdict(self._counters)}

    def _see(self, result: BatchResult, memory: SparseMemory) -> None:
        self.watch(result, memory)
        if self._notes is not None:
            self._notes.add(result)


def replayed(values: dict[str, Any], lane: Lane, design: DesignDescription) -> dict[str, Any]:
    """Recorded scenarios: see `driven.replay_all`."""
    return replay_all(values, partial(_Walks, lane, design))


def checked(values: dict[str, Any], lane: Lane, design: DesignDescription) -> dict[str, Any]:
    """Scenarios without recordings: see `driven.check_all`."""
    return check_all(values, partial(_Walks, lane, design))


@dataclass(frozen=True)
class Left:
    """A machine as the gateware left it behind, whatever it did.

    Attributes
    ----------
    kernel : Kernel
        With the golden MMU: the gateware stays where it is.
    told : dict
        counters, and how many words, events and trace records were compared; `differences`, in words, of the first step
        that differs from the golden model.
    """

    kernel: Kernel
    told: dict[str, Any]


def left_behind(state: ServedState, lane: Lane, design: DesignDescription, notes: MmuNotes | None = None) -> Left:
    """Run a scenario with every access through the gateware, in step with the golden model; `notes` take it down."""
    walks = _Walks(lane, design, None, Engines(None, None), notes)
    judge = LockstepJudge(watch=walks.watch)
    kernel = state.run(walks.mmu, judge)
    kernel.mmu = ModelMmu(kernel.memory)
    seen = {"words": judge.words} | walks.told()
    return Left(kernel, seen | {"differences": [str(difference) for difference in judge.differences]})


PERFORMANCES: Final[dict[str, Performance]] = {
    "recorded": recorded,
    "randomised": randomised,
    "timed": timed,
    "replayed": replayed,
    "checked": checked,
}
"""Name to performance."""
