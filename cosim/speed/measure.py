"""`ptewalk bench`: speeds, each beside its baseline measured in the same run, and judged where there is a target."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.records import state_and_request
from ptewalk.cosim.checks.random_walks import random_batch
from ptewalk.cosim.checks.shadow import Shadow
from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.cosim.formats.scenarios import load
from ptewalk.cosim.formats.walks import PHYSICAL_BITS
from ptewalk.cosim.runs.gateware import BATCH, BuiltWalker, WalkerLibrary
from ptewalk.cosim.simulate.find import COMPILED
from ptewalk.cosim.speed import gigabyte
from ptewalk.cosim.speed.fills import LEAST_RATIO, fill_rates
from ptewalk.cosim.stimulus.walks import random_walks
from ptewalk.model import bulk, paging_bulk
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import HUGE_PAGES, ScanCategory, SoftBit, Track
from ptewalk.model.paging import translate
from ptewalk.model.proc.files import WORD_BYTES, ProcFs, pid_of
from ptewalk.model.proc.pagemap_scan import Argument
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import NX, RW, US, A, D, Entries, P
from ptewalk.model.scenario import report as scenarios
from ptewalk.model.x86 import PAGE_SHIFT, TABLE_ENTRIES, Access

__all__ = ["MISSED", "PARTS", "measure"]

PARTS = ("cosim", "compiled", "translate", "fills", "bulk", "kernel", "replay", "gigabyte")
MISSED, NOT_RUN = "missed", "not run"
_PROTOCOL_WALKS = 600
_BATCH_TARGET = 50
_WHOLE_TARGET = 4
"""How many times as long as `paging.translate` a walk may take from stimulus to verdict."""
_AT_ONCE_TARGETS = {"numpy": 3, "compiled": 8}
"""How many times as fast many walks must be translated at once."""
_ENTRIES = 1 << 24
"""Entries of the bulk rows: 128 MiB, the leaves of a 64 GiB address space."""
_PROCESS_TABLES = 1024
"""Page tables of the process of the kernel rows: 2 GiB."""
_ROUNDS = 9
_AND, _COPY = "in-place AND", "memcpy"
_TARGETS: dict[str, dict[str, float]] = {
    "numpy": {"clear_refs": 4, "pagemap": 5},
    "compiled": {"clear_refs": 1.2, "pagemap": 1.2, "scan": 1.2},
}
"""Level to operation to how many times its floor it may take."""
_PROC_TARGETS: dict[str, dict[str, float]] = {
    "numpy": {"clear_refs": 6, "pagemap": 6, "scan": 6},
    "compiled": {"clear_refs": 4, "pagemap": 6, "scan": 6},
}
"""The same of the files of /proc, and of PAGEMAP_SCAN."""
_PROFILES = ("linux-6.1", "linux-6.12")

Words = NDArray[np.uint64]


def _row(
    name: str,
    value: float,
    unit: str,
    baseline: str,
    ratio: float,
    *,
    least: float | None = None,
    most: float | None = None,
) -> dict[str, Any]:
    """A row; its ratio is judged where `least` or `most` is given."""
    row = {"name": name, "value": round(value, 2), "unit": unit, "baseline": baseline, "ratio": round(ratio, 2)}
    if least is not None:
        return row | {"target": f">= {least}", "verdict": "ok" if ratio >= least else MISSED}
    if most is not None:
        return row | {"target": f"<= {most}", "verdict": "ok" if ratio <= most else MISSED}
    return row | {"target": None, "verdict": None}


def measure(
    parts: Sequence[str],
    simulator: str | None,
    walks: int,
    seed: int,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Rows of {name, value, unit, baseline, ratio, target, verdict} of the parts named, all when none is.

    The last two are None where there is no target; a verdict is "ok", "missed" or "not run". `progress` is called with
    (parts done, parts). Raises `ToolError` when the simulator has no batch level, or the walks measured do not agree
    with the golden model.
    """
    rows: list[dict[str, Any]] = []
    wanted = parts or PARTS
    for number, part in enumerate(wanted):
        progress(number, len(wanted))
        if part == "cosim":
            rows += _cosim(simulator, walks, seed)
        elif part == "compiled":
            rows += _compiled(seed)
        elif part == "translate":
            rows += _at_once(seed)
        elif part == "fills":
            model, gateware, ratio = fill_rates(WalkerLibrary.make().lane)
            baseline = f"golden model: {model:.0f}"
            rows.append(_row("fills of a program's TLB", gateware, "fills/s", baseline, ratio, least=LEAST_RATIO))
        elif part == "bulk":
            rows += _compare(_bulk, seed)
        elif part == "kernel":
            rows += _compare(_kernel, seed)
        elif part == "replay":
            rows += _replay()
        else:
            rows += _gigabyte(simulator, asked=bool(parts))
    return rows


def _gigabyte(simulator: str | None, *, asked: bool) -> list[dict[str, Any]]:
    """Soft-dirty tracking of 1 GiB: an entry a cycle, and what that is in time beside a kernel that QEMU translates.

    Where it was not `asked` for and there is no kernel to run, a row says so; what the gateware does wrong is an error.
    """
    try:
        kernel = gigabyte.kernel_of()
    except ToolError as error:
        if asked:
            raise
        empty = {"value": None, "unit": "", "baseline": str(error), "ratio": None, "target": None}
        return [{"name": "soft-dirty tracking of 1 GiB", **empty, "verdict": NOT_RUN}]
    rows = []
    measured = gigabyte.measured(kernel, simulator)
    for one in measured:
        value = one.cycles / one.mhz / 1000
        beside = f"Linux {kernel.version} under QEMU (TCG): {one.seconds * 1000:.1f} ms"
        unit = f"ms at {one.mhz} MHz"
        rows.append(_row(f"{one.name}: {one.cycles} cycles", value, unit, beside, one.seconds * 1000 / value))
    pages, cycles = gigabyte.TABLES * TABLE_ENTRIES, measured[0].cycles
    rows.append(_row("clear of dense tables", pages / cycles, "entries/cycle", "1", pages / cycles, least=0.95))
    log = gigabyte.logged(pages)
    beside = f"by their definitions: PML {log.pml}, HDBSS {log.hdbss}"
    rows.append(_row(f"full logs, {pages} pages dirtied", log.gateware, "stops", beside, log.pml / log.gateware))
    return rows


def _cosim(simulator: str | None, walks: int, seed: int) -> list[dict[str, Any]]:
    """The batch level beside the protocol level, on one model in one run."""
    walker = BuiltWalker.make(simulator)
    if not walker.model.batch:
        raise ToolError(f"{walker.simulator} has no batch level: {walker.model.batch_trouble}")
    library = WalkerLibrary.make()
    repeat = f"ptewalk bench --only cosim --simulator {walker.model.simulator.name} --walks {walks} --seed {seed}"
    levels = {
        "library": library.randomised(walks, seed, repeat),
        "linked lane": walker.randomised(walks, seed, repeat),
        "protocol level": walker.randomised(_PROTOCOL_WALKS, seed, repeat, protocol=True),
    }
    for level, result in levels.items():
        if result["failure"]:
            raise ToolError(f"the walks measured ({level}) do not agree with the golden model: {result['failure']}")
    rows = []
    for name, unit, count in (("walks", "walks/s", "walks"), ("clock", "cycles/s", "cycles")):
        rates = {level: result["rate"][count] / result["rate"]["seconds"] for level, result in levels.items()}
        slow = rates.pop("protocol level")
        for level, rate in rates.items():
            baseline = f"protocol level: {slow:.0f}"
            rows.append(_row(f"{name}: {level}", rate, unit, baseline, rate / slow, least=_BATCH_TARGET))
    return [*rows, _whole(library, seed, repeat)]


def _whole(library: WalkerLibrary, seed: int, repeat: str) -> dict[str, Any]:
    """Random walks end to end, stimulus and golden model included, beside the golden model alone on the same walks."""
    pairs = []
    for number in range(_ROUNDS):
        batch = random_batch(seed, number, BATCH, library.design)
        asked = [state_and_request(row) for row in batch.requests]
        alone = _seconds(lambda: [translate(batch.memory, *one) for one in asked])  # noqa: B023 - called at once
        whole = _seconds(lambda: library.randomised(BATCH, seed, repeat, batch=number))  # noqa: B023
        pairs.append((alone, whole))
    alone, whole = (BATCH / median(column) for column in zip(*pairs, strict=True))
    ratio = median(end_to_end / golden for golden, end_to_end in pairs)
    name = "walks with stimulus and golden model: library"
    return _row(name, whole, "walks/s", f"golden model alone: {alone:.0f}", ratio, most=_WHOLE_TARGET)


def _at_once(seed: int) -> list[dict[str, Any]]:
    """Random walks translated at once, where numba is compiled too, beside the same one by one, on the same memory."""
    levels = {"numpy": False} | ({"compiled": True} if importlib.util.find_spec("numba") else {})
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in levels}
    for number in range(_ROUNDS + 1):
        walks = random_walks(np.random.default_rng([seed, number]), BATCH)
        there, roots = walks.there, walks.accesses.root >> np.uint64(PAGE_SHIFT)
        shadow = Shadow.of_words(walks.address[there], walks.value[there], roots, PHYSICAL_BITS, strict=True)
        memory, asked = shadow.memory(), [(walk.state, walk.request) for walk in walks]
        memory.rows_of(roots)  # which makes its index
        one_by_one = _seconds(lambda: [translate(memory, *one) for one in asked])  # noqa: B023 - called at once
        for name, compiled in levels.items():
            at_once = _seconds(partial(paging_bulk.translate, memory, walks.accesses, compiled=compiled))
            times[name].append((one_by_one, at_once))
    rows = []
    for name, pairs in times.items():
        del pairs[0]  # the first round compiles
        ratio = median(alone / together for alone, together in pairs)
        slow, fast = (BATCH / median(column) for column in zip(*pairs, strict=True))
        title, baseline = f"translation at once: {name}", f"one by one: {slow:.0f}"
        rows.append(_row(title, fast, "walks/s", baseline, ratio, least=_AT_ONCE_TARGETS[name]))
    return rows


def _compiled(seed: int) -> list[dict[str, Any]]:
    """CXXRTL beside Verilator on the same walks, batch by batch: the clock of the lane alone, and end to end.

    There is no target: how much is gained depends on the design, and on what the golden model costs.
    """
    libraries = {name: WalkerLibrary.make(simulator=name) for name in COMPILED}
    clocks: dict[str, list[float]] = {name: [] for name in COMPILED}
    wholes: dict[str, list[float]] = {name: [] for name in COMPILED}
    for number in range(_ROUNDS):
        for name, library in libraries.items():
            repeat = f"ptewalk bench --only compiled --seed {seed}"
            started = time.thread_time()
            result = library.randomised(BATCH, seed, repeat, batch=number)
            wholes[name].append(BATCH / (time.thread_time() - started))
            clocks[name].append(result["rate"]["cycles"] / result["rate"]["seconds"])
            if result["failure"]:
                raise ToolError(f"the walks measured do not agree with the golden model: {result['failure']}")
    told = (("clock, lane alone", "cycles/s", clocks), ("walks with stimulus and golden model", "walks/s", wholes))
    rows = []
    for what, unit, rates in told:
        by, against = (rates[name] for name in ("cxxrtl", "verilator"))
        ratio = median(one / other for one, other in zip(by, against, strict=True))
        rows.append(_row(f"{what}: CXXRTL", median(by), unit, f"Verilator: {median(against):.0f}", ratio))
    return rows


class _Subject(NamedTuple):
    """One row to measure.

    Attributes
    ----------
    name : str
    floor : str
        Name of the floor beside it.
    target : float or None
        How many times the floor it may take.
    entries : int
    prepare, run : callable
        Only `run` is measured.
    """

    name: str
    floor: str
    target: float | None
    entries: int
    prepare: Callable[[], object]
    run: Callable[[], object]


def _compare(make: Callable[[int, Words, Words], list[_Subject]], seed: int) -> list[dict[str, Any]]:
    """Each subject right after its floor, round by round; medians of CPU time, and of the rounds' ratios."""
    work, out = np.ones((2, _ENTRIES), np.uint64)
    keep = np.uint64(~(RW | 1 << SoftBit.SOFT_DIRTY) & (1 << 64) - 1)
    floors: dict[str, Callable[[], object]] = {
        _AND: partial(np.bitwise_and, work, keep, out=work),
        _COPY: partial(np.copyto, out, work),
    }
    subjects = make(seed, work, out)
    times: dict[str, list[tuple[float, float]]] = {subject.name: [] for subject in subjects}
    for _ in range(_ROUNDS + 1):
        for subject in subjects:
            floor = _seconds(floors[subject.floor]) / _ENTRIES
            subject.prepare()
            times[subject.name].append((floor, _seconds(subject.run) / subject.entries))
    rows = []
    for subject in subjects:
        pairs = times[subject.name][1:]  # the first round compiles, and touches memory
        floor, value = (1e9 * median(column) for column in zip(*pairs, strict=True))
        ratio = median(own / below for below, own in pairs)
        rows.append(_row(subject.name, value, "ns/entry", f"{subject.floor}: {floor:.2f}", ratio, most=subject.target))
    return rows


def _seconds(call: Callable[[], object]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started


def _entries(seed: int, rules: Entries) -> Words:
    """Level-1 entries of an address space: nine in ten mapped, half of those written, at random.

    Of one table in 200, three entries in four are swapped out instead, half of those soft-dirty.
    """
    rng = np.random.default_rng(seed)
    entries = rng.integers(1, 1 << 28, _ENTRIES).astype(np.uint64) << np.uint64(PAGE_SHIFT)
    entries |= np.uint64(P | US | A | NX)
    entries |= rng.integers(0, 2, _ENTRIES).astype(np.uint64) * np.uint64(RW | D | rules.SOFT_DIRTY)
    tables = entries.reshape(-1, TABLE_ENTRIES)
    for table in tables[::200]:
        slots, dirty = rng.integers(1, 1 << 22, TABLE_ENTRIES), rng.integers(0, 2, TABLE_ENTRIES)
        swapped = np.array([rules.swp_entry_to_pte(0, slot) for slot in slots.tolist()], np.uint64)
        swapped |= dirty.astype(np.uint64) * np.uint64(rules.SWP_SOFT_DIRTY)
        np.copyto(table, swapped, where=rng.random(TABLE_ENTRIES) < 3 / 4)
    entries[rng.random(_ENTRIES) < 1 / 10] = 0
    return entries


def _levels() -> list[tuple[str, bool]]:
    """Plain numpy, and where numba is compiled code: (name, compiled)."""
    return [("numpy", False)] + ([("compiled", True)] if importlib.util.find_spec("numba") else [])


def _bulk(seed: int, work: Words, out: Words) -> list[_Subject]:
    """clear_refs, pagemap and scan on arrays."""
    subjects = []
    for name in _PROFILES:
        plain = Entries(PROFILES[name])
        prepare = partial(np.copyto, work, _entries(seed, plain))
        for level, compiled in _levels():
            target = _TARGETS[level].get
            for track in Track:
                run = partial(bulk.clear_refs, work, Entries(PROFILES[name], track=track), compiled=compiled)
                title = f"clear_refs {name}, {track.name.lower()}: {level}"
                subjects.append(_Subject(title, _AND, target("clear_refs"), _ENTRIES, prepare, run))
            words = partial(bulk.pagemap, work, plain, out=out, compiled=compiled)
            subjects.append(_Subject(f"pagemap {name}: {level}", _COPY, target("pagemap"), _ENTRIES, prepare, words))
            scan = partial(bulk.scan, work, plain, compiled=compiled)
            subjects.append(
                _Subject(f"scan to a bitmap {name}: {level}", _AND, target("scan"), _ENTRIES, prepare, scan)
            )
    return subjects


def _process(kernel: Kernel, seed: int) -> int:
    """Give process 0 an area of 4 KiB pages; how many places it has.

    Of each table nine in ten are mapped; of one table in 200, three in four are swapped out; one table in 64 was
    written since the last clear.
    """
    process, rng = kernel.processes[0], np.random.default_rng(seed)
    pages = _PROCESS_TABLES * HUGE_PAGES
    kernel.mmap(process, kernel.base, pages, "rw", "anon", 0, [])
    kernel.madvise(process, kernel.base, pages, "HUGEPAGE")
    heads = range(kernel.base, kernel.base + pages, HUGE_PAGES)
    kernel.touch_pages(process, heads, Access.WRITE, 1)
    for head in heads:  # which breaks the huge page up
        kernel.madvise(process, head + int(rng.integers(HUGE_PAGES * 9 // 10)), HUGE_PAGES // 10, "DONTNEED")
    for head in heads[::200]:
        kernel.madvise(process, head, HUGE_PAGES * 3 // 4, "PAGEOUT")
    kernel.clear_refs(process.who, "4")
    for head in heads[::64]:
        kernel.touch_pages(process, range(head, head + HUGE_PAGES), Access.WRITE, 1)
    return pages


def _kernel(seed: int, work: Words, out: Words) -> list[_Subject]:
    """The same through the files of /proc, and PAGEMAP_SCAN, on a process: what the whole path costs."""
    subjects = []
    for name, (level, compiled) in product(_PROFILES, _levels()):
        kernel = Kernel(PROFILES[name], compiled=compiled)
        pages = _process(kernel, seed)
        files, who, target = ProcFs(kernel), pid_of(0), _PROC_TARGETS[level].get
        prepare = partial(np.copyto, kernel.memory.words, kernel.memory.words.copy())
        write = partial(files.open(f"{who}/clear_refs").pwrite, b"4", 0)
        subjects.append(
            _Subject(f"/proc/PID/clear_refs {name}: {level}", _AND, target("clear_refs"), pages, prepare, write)
        )
        read = partial(files.open(f"{who}/pagemap").pread, WORD_BYTES * pages, WORD_BYTES * kernel.base)
        subjects.append(_Subject(f"/proc/PID/pagemap {name}: {level}", _COPY, target("pagemap"), pages, prepare, read))
        if "pagemap_scan" in kernel.profile.verbs:
            start, end = kernel.base << PAGE_SHIFT, kernel.base + pages << PAGE_SHIFT
            argument = Argument(start, end, category_mask=ScanCategory.SOFT_DIRTY, vec_len=pages)
            scan = partial(kernel.pagemap_scan, kernel.processes[0], argument)
            subjects.append(_Subject(f"PAGEMAP_SCAN {name}: {level}", _COPY, target("scan"), pages, prepare, scan))
    return subjects


def _replay() -> list[dict[str, Any]]:
    """Steps per second of CPU time of a replay on the golden model, reading the file apart."""
    rows = []
    for profile, path in KERNELS.items():
        chosen = load([path])
        steps = sum(len(scenario.steps) for scenario in chosen)
        seconds = float("inf")
        for _ in range(_ROUNDS):
            seconds = min(seconds, _seconds(partial(scenarios.replay, chosen, profile)))
        rate = steps / seconds
        rows.append(_row(f"replay {profile}", rate, "steps/s", "wanted: 2000", rate / 2000, least=1))
    return rows
