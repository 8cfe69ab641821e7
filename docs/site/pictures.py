"""The pictures of docs/tour.md, drawn from the project itself; `python docs/site/pictures.py` writes docs/pictures.

Streams and their widths are those that an export describes; the walk and the ways between states are what Amaranth's
simulator showed. Nothing here knows what the walker should do: where it does something else, the picture changes, and
`tests/test_tour.py` says so.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import schemdraw
from amaranth.sim import Simulator
from schemdraw import Drawing, flow, logic

from ptewalk.model import linux, x86
from ptewalk.rtl.description import DesignDescription
from ptewalk.rtl.export import describe
from ptewalk.rtl.presets import preset
from ptewalk.rtl.walker import Walker, WalkerConfig, WalkState

FOLDER: Final = Path(__file__).resolve().parents[1] / "pictures"
LATENCY: Final = 2
"""Of memory, in cycles, in the walk that is drawn."""
ROOT: Final = 0x1000
LINEAR: Final = 0x1678
TABLES: Final = {0x1000: 0x2027, 0x2000: 0x3027, 0x3000: 0x4027, 0x4008: 0x5067}
"""PML4E to PTE: all but soft-dirty is set."""
STREAMS: Final = {
    "request": ("contexts", "requester.requests"),
    "memory": ("memory.reads", "memory.data", "memory.swaps", "memory.swapped"),
    "response": ("requester.responses", "o_written"),
}
"""Picture to the streams in it."""
_SHOWN: Final = {
    "contexts": "root",
    "requester.requests": "linear",
    "memory.reads": "address",
    "memory.data": "value",
    "memory.swaps": "new",
    "memory.swapped": "done",
    "requester.responses": "physical",
    "o_written": "new",
}
_PLACES: Final = {
    WalkState.IDLE: (0, 0),
    WalkState.READ: (5, 0),
    WalkState.CHECK: (10, 0),
    WalkState.JUDGE: (7.5, -4),
    WalkState.SWAPPED: (2.5, -4),
}

Cycle = dict[str, Any]
"""What the pins showed in a cycle: of each stream [valid, ready, the field that is drawn]; and the state."""


class Memory:
    """Memory of a fixed latency, which may stall, and where a second writer may make a swap fail.

    Parameters
    ----------
    words : dict of int to int
    chance : random.Random, optional
        Of stalls and failed swaps; without it there are none.
    """

    def __init__(self, words: dict[int, int], chance: random.Random | None = None) -> None:
        self._words = words
        self._chance = chance
        self._due: dict[int, tuple[str, dict[str, int]]] = {}

    def _happens(self, often: float) -> bool:
        return self._chance is not None and self._chance.random() < often

    def show(self, ctx: Any, port: Any, cycle: int) -> None:
        """What memory drives in a cycle."""
        due, fields = self._due.pop(cycle, ("", {}))
        for name in ("data", "swapped"):
            ctx.set(port[name].valid, name == due)
            if name == due:
                ctx.set(port[name].payload, fields)
        for name in ("reads", "swaps"):
            ctx.set(port[name].ready, not self._happens(0.3))

    def take(self, ctx: Any, port: Any, cycle: int) -> None:
        """What it accepts in a cycle."""
        for name in ("reads", "swaps"):
            if not (ctx.get(port[name].valid) and ctx.get(port[name].ready)):
                continue
            asked = ctx.get(port[name].payload)
            word = self._words.get(asked.address, 0)
            if name == "reads":
                self._due[cycle + LATENCY] = "data", {"value": word, "id": asked.id}
                continue
            done = word == asked.old and not self._happens(0.2)
            if done:
                self._words[asked.address] = asked.new
            self._due[cycle + LATENCY] = "swapped", {"done": done, "id": asked.id}


def walked(words: dict[int, int], linears: list[int], chance: random.Random | None = None) -> list[Cycle]:
    """The cycles of a walker that is asked for stores, one after the other: first its context, under `native`."""
    walker = Walker(WalkerConfig(observe=True))
    memory = Memory(words, chance)
    port = {name: getattr(walker.memory, name) for name in ("reads", "data", "swaps", "swapped")}
    streams = {
        "contexts": walker.contexts,
        "requester.requests": walker.requester.requests,
        "requester.responses": walker.requester.responses,
        "o_written": walker.o_written,
        **{f"memory.{name}": stream for name, stream in port.items()},
    }
    cycles: list[Cycle] = []

    async def job(ctx: Any) -> None:
        left = list(linears)
        ctx.set(walker.contexts.payload, {"root": ROOT >> 12, "track": linux.Track.NATIVE})
        ctx.set(walker.requester.responses.ready, 1)
        answers = 0
        while answers < len(linears) or len(cycles) % 4:
            if len(cycles) > 200 * len(linears):
                raise RuntimeError(f"no answer to store {answers} within {len(cycles)} cycles")
            ctx.set(walker.contexts.valid, not cycles)
            ctx.set(walker.requester.requests.valid, bool(cycles and left))
            if left:
                ctx.set(
                    walker.requester.requests.payload,
                    {"linear": left[0], "access": x86.Access.WRITE, "user": 1},
                )
            memory.show(ctx, port, len(cycles))
            cycle: Cycle = {"state": WalkState(ctx.get(walker.o_registers.state)).name}
            for name, stream in streams.items():
                field = ctx.get(getattr(stream.payload, _SHOWN[name]))
                cycle[name] = [ctx.get(stream.valid), ctx.get(stream.ready), int(field)]
            memory.take(ctx, port, len(cycles))
            cycles.append(cycle)
            if all(cycle["requester.requests"][:2]):
                left.pop(0)
            answers += all(cycle["requester.responses"][:2])
            await ctx.tick()

    simulator = Simulator(walker)
    simulator.add_clock(1e-6)
    simulator.add_testbench(job)
    simulator.run()
    return cycles


def ways(cycles: list[Cycle]) -> Counter[tuple[WalkState, WalkState]]:
    """How often a walker went from one state to another."""
    states = [WalkState[cycle["state"]] for cycle in cycles]
    return Counter((one, other) for one, other in zip(states, states[1:], strict=False) if one != other)


def some_walks() -> list[Cycle]:
    """Cycles of 200 stores: good, bad, not canonical, to entries that lack A, with stalls and a second writer."""
    chance = random.Random(1)
    cycles: list[Cycle] = []
    for _ in range(20):
        words = {address: word & ~(0x20 * chance.randrange(2)) for address, word in TABLES.items()}
        linears = [chance.choice((LINEAR, LINEAR, LINEAR + 0x1000, 1 << 63)) for _ in range(10)]
        cycles += walked(words, linears, chance)
    return cycles


def _wave(name: str, values: list[Any]) -> dict[str, Any]:
    """A row of a timing diagram: bits as levels, other values as boxes; None is drawn as unknown."""
    wave, data, last = "", [], object()
    for value in values:
        if value == last:
            wave += "."
        elif value is None:
            wave += "x"
        elif isinstance(value, bool):
            wave += "01"[value]
        else:
            wave += "="
            data.append(value)
        last = value
    return {"name": name, "wave": wave, "data": data}


def _stream_rows(name: str, cycles: list[Cycle], described: DesignDescription) -> list[dict[str, Any]]:
    """The rows of a stream: valid, ready where it has one, and the field that is drawn."""
    (stream,) = (stream for stream in described.streams if stream.path == name)
    short, shown = name.rpartition(".")[2], [cycle[name] for cycle in cycles]
    rows = [_wave(f"{short}.valid", [bool(valid) for valid, _, _ in shown])]
    if stream.ready is not None:
        rows.append(_wave(f"{short}.ready", [bool(ready) for _, ready, _ in shown]))
    one_bit = described.width(stream.fields[_SHOWN[name]]) == 1
    values = [(bool(value) if one_bit else f"{value:x}") if valid else None for valid, _, value in shown]
    return [*rows, _wave(f"{short}.{_SHOWN[name]}", values)]


def timing(picture: str) -> Drawing:
    """A walk, at the pins of some streams, and the walker's state."""
    cycles = walked(dict(TABLES), [LINEAR])
    described = describe(WalkerConfig())
    rows = [{"name": "clk", "wave": "p" + "." * (len(cycles) - 1)}]
    rows.append(_wave("state", [cycle["state"] for cycle in cycles]))
    for name in STREAMS[picture]:
        rows += _stream_rows(name, cycles, described)
    drawing = Drawing(show=False)
    drawing += logic.TimingDiagram({"signal": rows, "config": {"hscale": 1.4}}, fontsize=11, nodesize=8)
    return drawing


def states() -> Drawing:
    """The ways between a walker's states that `some_walks` took."""
    drawing = Drawing(show=False)
    boxes = {}
    for state, place in _PLACES.items():
        boxes[state] = flow.State(r=1.1).label(state.name).at(place).anchor("center")
        drawing += boxes[state]
    for one, other in sorted(ways(some_walks())):
        (left, top), (right, bottom) = _PLACES[one], _PLACES[other]
        across, down = right - left, bottom - top
        length = (across**2 + down**2) ** 0.5
        # Each way begins and ends a little to the left of the line between the centres: so two ways lie side by side.
        side = (-down / length * 0.25, across / length * 0.25)
        begin = (left + across / length * 1.1 + side[0], top + down / length * 1.1 + side[1])
        end = (right - across / length * 1.1 + side[0], bottom - down / length * 1.1 + side[1])
        drawing += flow.Arrow().at(begin).to(end)
    return drawing


def blocks(design: str) -> Drawing:
    """A preset as a box, and each of its streams as an arrow, with what it carries and how wide that is."""
    described = describe(preset(design))
    widths = {
        stream.path: sum(described.width(port) for port in stream.fields.values()) for stream in described.streams
    }
    memory = [stream for stream in described.streams if stream.path.startswith("memory.")]
    others = [stream for stream in described.streams if stream not in memory]
    height = 1.1 * max(len(memory), len(others)) + 0.6
    drawing = Drawing(show=False)
    drawing += flow.Box(w=4, h=height).label(design).at((0, 0)).anchor("center")
    for streams, edge, away in ((others, -2, -5), (memory, 2, 5)):
        for number, stream in enumerate(streams):
            at = height / 2 - 0.85 - 1.1 * number
            inner, outer = (edge, at), (edge + away, at)
            begin, end = (outer, inner) if stream.direction == "input" else (inner, outer)
            text = f"{stream.path}: {widths[stream.path]} bits"
            drawing += flow.Arrow().at(begin).to(end)
            drawing += (
                flow.Line().at((min(inner[0], outer[0]), at)).to((max(inner[0], outer[0]), at)).label(text, fontsize=10)
            )
    return drawing


PICTURES: Final[dict[str, Callable[[], Drawing]]] = {
    **{f"{name}.svg": partial(timing, name) for name in STREAMS},
    "states.svg": states,
    **{f"{name}.svg": partial(blocks, name) for name in ("walker", "mmu")},
}
"""File to what draws it."""


def drawn(name: str) -> str:
    """A picture as SVG, on white so that it can be read on a dark page."""
    schemdraw.use("svg")
    schemdraw.config(bgcolor="white", font="sans-serif", margin=0.6)
    return PICTURES[name]().get_imagedata("svg").decode()


if __name__ == "__main__":
    for name in PICTURES:
        (FOLDER / name).write_text(drawn(name))
