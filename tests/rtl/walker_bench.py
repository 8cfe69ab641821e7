"""A walker in Amaranth's own simulator with a plain memory: for unit tests of a few walks.

The numbers below are typed from the manual, not taken from the project's facts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from amaranth.sim import Simulator

from ptewalk.model import x86
from ptewalk.rtl.layouts import ControlLayout
from ptewalk.rtl.walker import Walker, WalkerConfig

# [SDM 3A tables 4-14 to 4-20] Bits of an entry; below them software's.
P, RW, US, PWT, PCD, A, D, PS, G = (1 << bit for bit in range(9))
PAT_LARGE = 1 << 12
XD = 1 << 63
SD, ARM, SAVED = 1 << 11, 1 << 52, 1 << 58

# [SDM 3A 4.7] Bits of the page-fault error code.
E_P, E_WR, E_US, E_RSVD, E_ID, E_PK = 1, 2, 4, 8, 16, 32

# Control bits, in the order of recorded walks.
WP, NXE, SMEP, SMAP, PKE, PKS, PGE, LA57 = (1 << bit for bit in range(8))

# `x86.Access` and `x86.Outcome`.
READ, WRITE, RMW, FETCH, PROBE = range(5)
OK, PF, GP, BUS = range(4)
OFF, FAULT, NATIVE = range(3)

SHIFT = {1: 12, 2: 21, 3: 30, 4: 39, 5: 48}
"""Level to the lowest linear-address bit of its index [SDM 3A 4.5]."""
TABLE = {1: 0x201000, 2: 0x202000, 3: 0x203000, 4: 0x204000, 5: 0x205000}
"""Level to the physical address of its table."""
LINEAR = 0x0000_5A5A_7654_3218
FRAME = 0x12_3456_7000
"""Physical address of the 4 KiB page that `tables` maps; FRAME_2M and FRAME_1G of larger ones."""
FRAME_2M = 0x12_3440_0000
FRAME_1G = 0x12_0000_0000
UPPER = P | RW | US | A
LEAF = FRAME | P | RW | US | A | D


def slot(linear: int, level: int) -> int:
    """Physical address of the entry of `linear` at `level`."""
    return TABLE[level] + (linear >> SHIFT[level] & 511) * 8


def tables(
    linear: int, leaf: int, *, levels: int = 4, leaf_level: int = 1, uppers: dict[int, int] | None = None
) -> dict[int, int]:
    """The words of one walk's tables: `leaf` whole, upper entries by their flags (`UPPER` unless said otherwise).

    The 511 neighbours of every entry are guards: each is present, and different from all others.
    """
    words = {}
    for level in range(levels, leaf_level - 1, -1):
        for index in range(512):
            words[TABLE[level] + index * 8] = (0x700000 + level * 0x1000 + index) << 12 | P | RW | US
        flags = (uppers or {}).get(level, UPPER)
        words[slot(linear, level)] = leaf if level == leaf_level else TABLE[level - 1] | flags
    return words


@dataclass
class Seen:
    """What one walk did: its response's fields, its cycles, and every memory operation in order."""

    response: dict[str, int] = field(default_factory=dict)
    cycles: int = 0
    operations: list[tuple[Any, ...]] = field(default_factory=list)
    translation: dict[str, int] = field(default_factory=dict)
    written: list[dict[str, int]] = field(default_factory=list)
    walked: list[dict[str, int]] = field(default_factory=list)

    @property
    def outcome(self) -> int:
        return self.response["outcome"]

    @property
    def code(self) -> int:
        return self.response["code"]

    @property
    def reads(self) -> list[int]:
        """Addresses read, in order."""
        return [operation[1] for operation in self.operations if operation[0] == "read"]

    @property
    def swaps(self) -> list[tuple[int, int, int, bool]]:
        """(address, old, new, done) of each swap, in order."""
        return [operation[1:] for operation in self.operations if operation[0] == "swap"]


class Bench:
    """One walker, simulated anew for each walk."""

    def __init__(self, config: WalkerConfig) -> None:
        self.walker = Walker(config)
        self.job: Callable[[Any], Any] | None = None
        self.simulator = Simulator(self.walker)
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self._run)

    async def _run(self, ctx: Any) -> None:
        assert self.job is not None
        await self.job(ctx)

    def run(self, job: Callable[[Any], Any]) -> None:
        """Run `job` from reset to its end."""
        if self.job is not None:
            self.simulator.reset()
        self.job = job
        self.simulator.run()


@lru_cache
def bench_of(config: WalkerConfig) -> Bench:
    """The bench of `config`, made once."""
    return Bench(config)


def walk(
    words: dict[int, int],
    linear: int,
    access: int = READ,
    *,
    config: WalkerConfig | None = None,
    latency: int = 1,
    root: int | None = None,
    control: int = 0,
    track: int = 0,
    saved_dirty: int = 0,
    user: int = 1,
    implicit: int = 0,
    ac: int = 0,
    pkru: int = 0,
    pkrs: int = 0,
    tag: int = 0xA5,
    bus_error: Callable[[str, int], bool] = lambda kind, address: False,
    after_read: Callable[[int, int], None] = lambda count, address: None,
    stall: Callable[[str, int], bool] = lambda channel, cycle: False,
    limit: int = 2000,
) -> Seen:
    """Run one request on a walker after reset. `words` (byte address to 64-bit word) is read and written in place.

    `root` is a frame number; by default that of the top table of `tables`. `after_read(count, address)` is called when
    the count-th read's value has been taken: a second writer may act there. `stall(channel, cycle)` withholds the
    ready of "reads", "swaps" or "responses". What is offered and not taken must stand, and there is one response.
    """
    config = config or WalkerConfig()
    if root is None:
        root = TABLE[5 if control & LA57 and config.levels == 5 else 4] >> 12
    bench = bench_of(config)
    walker = bench.walker
    seen = Seen()

    memory, requests, responses = walker.memory, walker.requester.requests, walker.requester.responses

    async def job(ctx: Any) -> None:
        await set_context(
            ctx, walker.contexts, root=root, control=control, pkru=pkru, pkrs=pkrs, track=track, saved_dirty=saved_dirty
        )
        fields = {"linear": linear, "access": x86.Access(access), "user": user, "implicit": implicit, "ac": ac}
        ctx.set(requests.payload, fields | {"tag": tag})
        ctx.set(requests.valid, 1)
        streams = {"reads": memory.reads, "swaps": memory.swaps, "responses": responses}
        held: dict[str, int] = {}
        pending: tuple[int, str, tuple[int, ...], int] | None = None
        accepted = None
        reads = 0
        for cycle in range(limit):
            ctx.set(memory.data.valid, 0)
            ctx.set(memory.swapped.valid, 0)
            for channel, port in streams.items():
                ctx.set(port.ready, not stall(channel, cycle))
            if pending is not None and pending[0] == cycle:
                _, kind, args, identity = pending
                pending = None
                error = bus_error(kind, args[0])
                if kind == "read":
                    value = words.get(args[0], 0)
                    ctx.set(memory.data.payload, {"value": value, "error": error, "id": identity})
                    ctx.set(memory.data.valid, 1)
                    seen.operations.append(("read", args[0], value))
                    reads += 1
                    after_read(reads, args[0])
                else:
                    address, old, new = args
                    done = not error and words.get(address, 0) == old
                    if done:
                        words[address] = new
                    ctx.set(memory.swapped.payload, {"done": done, "error": error, "id": identity})
                    ctx.set(memory.swapped.valid, 1)
                    seen.operations.append(("swap", address, old, new, done))
            if accepted is None and ctx.get(requests.ready):
                accepted = cycle
            if ctx.get(walker.o_written.valid):
                seen.written.append(_fields(ctx.get(walker.o_written.payload)))
            if config.trace and ctx.get(walker.o_walked.valid):
                seen.walked.append(_fields(ctx.get(walker.o_walked.payload)))
            taken = {}
            for channel, port in streams.items():
                valid, ready = ctx.get(port.valid), ctx.get(port.ready)
                value = ctx.get(port.payload.as_value())
                assert channel not in held or (valid and held[channel] == value), f"{channel} did not hold"
                held.pop(channel, None)
                if valid and not ready:
                    held[channel] = value
                elif valid:
                    taken[channel] = value
            if ctx.get(responses.valid) and not seen.response:
                assert accepted is not None, "a response before its request"
                seen.cycles = cycle - accepted
                seen.response = _fields(ctx.get(responses.payload))
                seen.translation = _fields(ctx.get(walker.o_translation))
            if "reads" in taken:
                assert pending is None, "two memory operations outstanding"
                payload = ctx.get(memory.reads.payload)
                pending = cycle + latency, "read", (payload.address,), payload.id
            if "swaps" in taken:
                assert pending is None, "two memory operations outstanding"
                payload = ctx.get(memory.swaps.payload)
                pending = cycle + latency, "swap", (payload.address, payload.old, payload.new), payload.id
            await ctx.tick()
            if accepted is not None:
                ctx.set(requests.valid, 0)
            if "responses" in taken:
                await _silence(ctx)
                return
        raise AssertionError(f"no response within {limit} cycles")

    async def _silence(ctx: Any) -> None:
        ctx.set(memory.data.valid, 0)
        ctx.set(memory.swapped.valid, 0)
        for _ in range(4):
            for port in (responses, memory.reads, memory.swaps):
                assert not ctx.get(port.valid), "the walker went on after its response"
            await ctx.tick()

    bench.run(job)
    return seen


async def set_context(ctx: Any, contexts: Any, *, control: int = 0, **fields: int) -> None:
    """Give a walker or an MMU in which nothing is in flight a context; fields that it does not have are left out."""
    shape = contexts.payload.shape().members
    known = {name: value for name, value in fields.items() if name in shape}
    ctx.set(contexts.payload, known | {"control": ControlLayout().const(control_bits(control))})
    ctx.set(contexts.valid, 1)
    assert ctx.get(contexts.ready)
    await ctx.tick()
    ctx.set(contexts.valid, 0)


def control_bits(control: int) -> dict[str, int]:
    """Field to value of the control bits in `control`."""
    names = ("wp", "nxe", "smep", "smap", "pke", "pks", "pge", "la57")
    return {name: control >> position & 1 for position, name in enumerate(names)}


def _fields(payload: Any) -> dict[str, int]:
    return {name: int(payload[name]) for name in payload.shape().members}


def unchanged(words: dict[int, int], before: dict[int, int], **new: int) -> None:
    """Every word is as `before`, guards and neighbours too, but for the level1=..., level2=... entries named."""
    expected = dict(before)
    for level, value in new.items():
        expected[slot(LINEAR, int(level.removeprefix("level")))] = value
    assert words == expected
