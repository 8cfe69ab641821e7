"""Cycles of the memory port on AXI4 at its pins, in Amaranth's own simulator: a few accesses, and nothing to build."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from amaranth.sim import Simulator

from ptewalk.model.x86 import Outcome
from ptewalk.rtl.bus.atomic import AtomicPortConfig
from ptewalk.rtl.bus.axi import Response
from ptewalk.rtl.bus.exclusive import ExclusivePortConfig
from ptewalk.rtl.bus.on_axi import word_port

__all__ = ["port_cycles"]

_AT: Final = 0x1000
_OLD, _NEW, _LAST = 0x8867, 0x8067, 0x8C67
_TARGETS: Final = {"read": (1, 2), "swap, linked": (1, 3), "swap, unlinked": (2, 4)}
"""(a, b) of the target a * L + b, by what is asked."""
_ATOMIC_TARGETS: Final = {"read": (1, 2), "swap": (1, 4)}
"""The same of a port that makes atomic transactions: of 64 bits, where W has two beats."""
_PATIENCE: Final = 20
"""How many times the slowest target an access may take."""


def port_cycles(
    latencies: Sequence[int], config: ExclusivePortConfig | AtomicPortConfig | None = None
) -> list[dict[str, Any]]:
    """Rows of {name, latency, cycles, outcome, swaps, differs, target, total} of a memory port on AXI.

    Latency is the bus's, from AR, or from AW and the last W, to the answer. A swap is linked where it is of the word
    read last. `differs` says what was answered wrongly.
    """
    return [row for latency in latencies for row in _measured(config or ExclusivePortConfig(), latency)]


def _measured(config: ExclusivePortConfig | AtomicPortConfig, latency: int) -> list[dict[str, Any]]:
    """The rows of one latency."""
    port = word_port(config)
    words = {_AT: _OLD}
    rows = []
    atomic = isinstance(config, AtomicPortConfig)
    bus, targets, serve = ("AXI5", _ATOMIC_TARGETS, _serve_atomic) if atomic else ("AXI", _TARGETS, _serve)
    names = ("swap", "swap") if atomic else ("swap, linked", "swap, unlinked")

    async def bench(ctx: Any) -> None:
        memory = port.memory
        most = _PATIENCE * (2 * latency + 4)
        swap = {"address": _AT, "id": 0}
        for name, streams, asked, answered, after in (
            ("read", (memory.reads, memory.data), swap, {"value": _OLD}, _OLD),
            (names[0], (memory.swaps, memory.swapped), {**swap, "old": _OLD, "new": _NEW}, {"done": 1}, _NEW),
            (names[1], (memory.swaps, memory.swapped), {**swap, "old": _NEW, "new": _LAST}, {"done": 1}, _LAST),
        ):
            cycles, answer = await _asked(ctx, *streams, asked, most)
            wrong = {
                field: answer[field] for field, value in {**answered, "error": 0}.items() if answer[field] != value
            }
            differs = f"answered {wrong}" if wrong else None
            if words[_AT] != after:
                differs = differs or f"memory has {words[_AT]:#x}, not {after:#x}"
            times, added = targets[name]
            rows.append(
                {
                    "name": f"port on {bus}: {name}",
                    "latency": latency,
                    "cycles": cycles,
                    "outcome": Outcome.OK.name,
                    "swaps": int(name != "read"),
                    "differs": differs,
                    "target": times * latency + added,
                    "total": cycles,
                }
            )

    simulator = Simulator(port)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)

    async def below(ctx: Any) -> None:
        await serve(ctx, port.m_axi, words, latency, config.data_bits // 64)

    simulator.add_testbench(below, background=True)
    simulator.run()
    return rows[:2] if atomic else rows  # two swaps of one kind


async def _asked(ctx: Any, stream: Any, answers: Any, payload: dict[str, int], most: int) -> tuple[int, Any]:
    """Cycles from the acceptance to the answer, and that; RuntimeError where none comes."""
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    accepted: int | None = None
    for cycle in range(most):
        _, _, ready, valid, answer = await ctx.tick().sample(stream.ready, answers.valid, answers.payload)
        if accepted is None and ready:
            accepted = cycle
            ctx.set(stream.valid, 0)
        elif accepted is not None and valid:
            return cycle - accepted, answer
    raise RuntimeError(f"the port did not answer within {most} cycles")


async def _serve(ctx: Any, axi: Any, words: dict[int, int], latency: int, lanes: int) -> None:
    """A memory with a monitor, for one access at a time."""
    for channel in (axi.ar, axi.aw, axi.w):
        ctx.set(channel.ready, 1)
    reserved: int | None = None
    reads: deque[tuple[int, int, int]] = deque()  # due, address, whether it is exclusive
    addresses: deque[int] = deque()
    writes: deque[tuple[int, int]] = deque()  # due, value
    cycle = 0
    while True:
        read, write = (bool(queue) and queue[0][0] <= cycle for queue in (reads, writes))
        ctx.set(axi.r.valid, read)
        ctx.set(axi.b.valid, write)
        if read:
            _, address, lock = reads.popleft()
            reserved = address if lock else reserved
            data = words[address] << 64 * (address // 8 % lanes)
            ctx.set(
                axi.r.payload, {"data": data, "resp": Response.EXOKAY if lock else Response.OKAY, "last": 1, "id": 0}
            )
        if write:
            _, value = writes.popleft()
            address = addresses.popleft()
            good = reserved == address
            if good:
                words[address], reserved = value, None
            ctx.set(axi.b.payload, {"resp": Response.EXOKAY if good else Response.OKAY, "id": 0})
        _, _, *seen = await ctx.tick().sample(
            *(axi.ar.valid, axi.ar.payload, axi.aw.valid, axi.aw.payload.addr, axi.w.valid, axi.w.payload.data)
        )
        cycle += 1
        if seen[0]:
            reads.append((cycle + latency - 1, seen[1].addr, seen[1].lock))
        if seen[2]:
            addresses.append(seen[3])
        if seen[4]:
            writes.append((cycle + latency - 1, seen[5] & (1 << 64) - 1))


async def _serve_atomic(ctx: Any, axi: Any, words: dict[int, int], latency: int, lanes: int) -> None:
    """A memory that takes AtomicCompare of the lower of two words, for one access at a time; R and B at once."""
    for channel in (axi.ar, axi.aw, axi.w):
        ctx.set(channel.ready, 1)
    due: deque[tuple[int, bool, int]] = deque()  # when, whether it is a swap, address
    addresses: deque[int] = deque()
    halves: list[int] = []
    cycle = 0
    while True:
        told = bool(due) and due[0][0] <= cycle
        ctx.set(axi.r.valid, told)
        ctx.set(axi.b.valid, told and due[0][1])
        if told:
            _, swaps, address = due.popleft()
            data = words[address] << 64 * (address // 8 % lanes)
            ctx.set(axi.r.payload, {"data": data, "resp": Response.OKAY, "last": 1, "id": 0})
            ctx.set(axi.b.payload, {"resp": Response.OKAY, "id": 0})
            if swaps and words[address] == halves[0]:
                words[address] = halves[1]
            if swaps:
                halves.clear()
        _, _, *seen = await ctx.tick().sample(
            *(axi.ar.valid, axi.ar.payload.addr, axi.aw.valid, axi.aw.payload.addr, axi.w.valid, axi.w.payload)
        )
        cycle += 1
        if seen[0]:
            due.append((cycle + latency - 1, False, seen[1]))
        if seen[2]:
            addresses.append(seen[3])
        if seen[4]:
            halves += [seen[5].data >> 64 * lane & (1 << 64) - 1 for lane in range(min(lanes, 2))]
            if seen[5].last:
                due.append((cycle + latency - 1, True, addresses.popleft()))
