"""A walker in Amaranth's own simulator with a plain memory: for unit tests of a few walks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from amaranth.sim import Simulator

from ptewalk.model import x86
from ptewalk.rtl.walker import Walker, WalkerConfig


@dataclass
class Seen:
    """What one walk did: its response's fields, its cycles, and every memory operation in order."""

    response: dict[str, int] = field(default_factory=dict)
    cycles: int = 0
    operations: list[tuple[Any, ...]] = field(default_factory=list)


def walk(
    words: dict[int, int],
    linear: int,
    access: x86.Access = x86.Access.READ,
    *,
    config: WalkerConfig | None = None,
    latency: int = 1,
    root: int = 0x204,
    control: int = 0,
    track: int = 0,
    saved_dirty: int = 0,
    user: int = 1,
    implicit: int = 0,
    ac: int = 0,
    pkru: int = 0,
    pkrs: int = 0,
    bus_error: Callable[[str, int], bool] = lambda kind, address: False,
    after_read: Callable[[int, int], None] = lambda count, address: None,
    limit: int = 2000,
) -> Seen:
    """Run one request on a fresh walker. `words` (byte address to 64-bit word) is read and written in place.

    `after_read(count, address)` is called when the count-th read's value has been taken: a second writer may act there.
    """
    walker = Walker(config or WalkerConfig())
    seen = Seen()

    async def bench(ctx: Any) -> None:
        ctx.set(walker.root, root)
        ctx.set(walker.control.as_value(), control)
        ctx.set(walker.pkru, pkru)
        ctx.set(walker.pkrs, pkrs)
        if walker.config.soft_dirty:
            ctx.set(walker.track, track)
            ctx.set(walker.saved_dirty, saved_dirty)
        fields = {"linear": linear, "access": access, "user": user, "implicit": implicit, "ac": ac, "tag": 0xA5}
        ctx.set(walker.i_requests.payload, fields)
        ctx.set(walker.i_requests.valid, 1)
        ctx.set(walker.o_reads.ready, 1)
        ctx.set(walker.o_swaps.ready, 1)
        ctx.set(walker.o_responses.ready, 1)
        pending: list[tuple[int, str, tuple[int, ...]]] = []
        accepted = None
        reads = 0
        for cycle in range(limit):
            ctx.set(walker.i_data.valid, 0)
            ctx.set(walker.i_swapped.valid, 0)
            if pending and pending[0][0] == cycle:
                _, kind, args = pending.pop(0)
                error = bus_error(kind, args[0])
                if kind == "read":
                    value = words.get(args[0], 0)
                    ctx.set(walker.i_data.payload, {"value": 0 if error else value, "error": error})
                    ctx.set(walker.i_data.valid, 1)
                    seen.operations.append(("read", args[0], value))
                    reads += 1
                    after_read(reads, args[0])
                else:
                    address, old, new = args
                    done = not error and words.get(address, 0) == old
                    if done:
                        words[address] = new
                    ctx.set(walker.i_swapped.payload, {"done": done, "error": error})
                    ctx.set(walker.i_swapped.valid, 1)
                    seen.operations.append(("swap", address, old, new, done))
            if accepted is None and ctx.get(walker.i_requests.ready):
                accepted = cycle
            if ctx.get(walker.o_responses.valid):
                payload = ctx.get(walker.o_responses.payload)
                seen.response = {name: int(payload[name]) for name in payload.shape().members}
                assert accepted is not None
                seen.cycles = cycle - accepted
                return
            if ctx.get(walker.o_reads.valid):
                assert not pending, "two memory operations outstanding"
                pending.append((cycle + latency, "read", (ctx.get(walker.o_reads.payload.address),)))
            if ctx.get(walker.o_swaps.valid):
                assert not pending, "two memory operations outstanding"
                payload = ctx.get(walker.o_swaps.payload)
                pending.append((cycle + latency, "swap", (payload.address, payload.old, payload.new)))
            await ctx.tick()
            if accepted is not None:
                ctx.set(walker.i_requests.valid, 0)
        raise AssertionError(f"no response within {limit} cycles")

    simulator = Simulator(walker)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen
