"""The gateware as an MMU in Amaranth's own simulator: needs nothing but Amaranth; slow, for tests of a few walks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.sim import Simulator

from ptewalk.cosim.bench.records import RESPONSE, decode, encode_requests, make
from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.paging import Request, Result, State, Translated
from ptewalk.rtl.mmu import Mmu, MmuConfig
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["AmaranthMmu"]

_MOST_CYCLES = 1000


class AmaranthMmu:
    """An `Mmu` (see model/mmu.py) whose every access is a walk of the gateware, at memory latency 1.

    Parameters
    ----------
    memory : SparseMemory
        The tables, which software and gateware share.
    soft_dirty : bool
        CONFIG_MEM_SOFT_DIRTY.

    Attributes
    ----------
    walks : int
        Walks made.
    """

    def __init__(self, memory: SparseMemory, *, soft_dirty: bool = True) -> None:
        self.walks = 0
        self._memory = memory
        self._config = MmuConfig(WalkerConfig(physical_bits=memory.physical_bits, soft_dirty=soft_dirty))
        self._asked: Any = None
        self._answer: dict[str, int] | None = None
        self._gateware: Any = None  # made by the first walk, as is its simulator
        self._simulator: Any = None

    def run(self, state: State, requests: Sequence[Request]) -> list[Result]:
        """As `Mmu.run`; RuntimeError when the gateware does not answer."""
        if self._simulator is None:
            self._gateware = Mmu(self._config)
            self._simulator = Simulator(self._gateware)
            self._simulator.add_clock(1e-6)
            self._simulator.add_testbench(self._serve, background=True)
        results: list[Result] = []
        for record in encode_requests((state, request) for request in requests):
            self._asked, self._answer = record, None
            for _ in range(2 * _MOST_CYCLES):
                self._simulator.advance()
                if self._answer is not None:
                    break
            else:
                raise RuntimeError(f"no answer within {_MOST_CYCLES} cycles")
            self.walks += 1
            results.append(decode(make(RESPONSE, self._answer)))
            if not isinstance(results[-1], Translated):
                break
        return results

    def invalidate(self, linear: int | None = None) -> None:
        """Nothing is cached."""

    async def _serve(self, ctx: Any) -> None:
        """Drive the pins, one cycle a turn."""
        dut = self._gateware
        for stream in (dut.o_reads, dut.o_swaps, dut.o_responses, dut.o_faults):
            ctx.set(stream.ready, 1)
        pending: tuple[str, tuple[int, ...]] | None = None
        while True:
            ctx.set(dut.i_data.valid, 0)
            ctx.set(dut.i_swapped.valid, 0)
            ctx.set(dut.i_retired.valid, 0)
            if pending is not None:
                self._answer_memory(ctx, *pending)
                pending = None
            if self._asked is not None:
                self._present(ctx, self._asked)
                if ctx.get(dut.i_requests.ready):
                    self._asked = None
            else:
                ctx.set(dut.i_requests.valid, 0)
            if ctx.get(dut.o_responses.valid):
                payload = ctx.get(dut.o_responses.payload)
                self._answer = {name: int(payload[name]) for name in payload.shape().members}
                ctx.set(dut.i_retired.valid, int(self._answer["outcome"] == 0))
            if ctx.get(dut.o_reads.valid):
                pending = "read", (ctx.get(dut.o_reads.payload.address),)
            elif ctx.get(dut.o_swaps.valid):
                swap = ctx.get(dut.o_swaps.payload)
                pending = "swap", (swap.address, swap.old, swap.new)
            await ctx.tick()

    def _present(self, ctx: Any, record: Any) -> None:
        dut = self._gateware
        names = ["root", "pkru", "pkrs"] + (["track", "saved_dirty"] if hasattr(dut, "track") else [])
        for name in names:
            ctx.set(getattr(dut, name), int(record[name]))
        ctx.set(dut.control.as_value(), int(record["control"]))
        fields = ("linear", "access", "user", "implicit", "ac", "tag")
        ctx.set(dut.i_requests.payload, {name: int(record[name]) for name in fields})
        ctx.set(dut.i_requests.valid, 1)

    def _answer_memory(self, ctx: Any, kind: str, arguments: tuple[int, ...]) -> None:
        dut = self._gateware
        try:
            if kind == "read":
                ctx.set(dut.i_data.payload, {"value": self._memory.load(arguments[0]), "error": 0})
            else:
                ctx.set(dut.i_swapped.payload, {"done": self._memory.compare_exchange(*arguments), "error": 0})
        except BusError:
            (data, extra) = (dut.i_data, {"value": 0}) if kind == "read" else (dut.i_swapped, {"done": 0})
            ctx.set(data.payload, {**extra, "error": 1})
        ctx.set((dut.i_data if kind == "read" else dut.i_swapped).valid, 1)
