"""The gateware as an MMU in Amaranth's own simulator: needs nothing but Amaranth; slow, for tests of a few walks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.sim import Simulator

from ptewalk.cosim.bench.records import RESPONSE, decode, encode_requests, make
from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.paging import Request, Result, State, Translated
from ptewalk.model.x86 import Access
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
        self._known = False  # the request's context was taken
        self._granted = False  # an OK to the request is a grant
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
            self._asked, self._answer, self._known = record, None, False
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

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        """Nothing is cached."""

    async def _serve(self, ctx: Any) -> None:
        """Drive the pins, one cycle a turn."""
        dut = self._gateware
        requester, memory = dut.requester, dut.memory
        for stream in (memory.reads, memory.swaps, requester.responses, dut.supervisor.faults):
            ctx.set(stream.ready, 1)
        pending: tuple[Any, Any] | None = None
        while True:
            for stream in (memory.data, memory.swapped, requester.retired):
                ctx.set(stream.valid, 0)
            if pending is not None:
                self._answer_memory(ctx, *pending)
                pending = None
            ctx.set(requester.requests.valid, self._asked is not None)
            ctx.set(dut.contexts.valid, self._asked is not None and not self._known)
            if self._asked is not None:
                self._present(ctx, self._asked)
                self._known |= bool(ctx.get(dut.contexts.ready))
                if ctx.get(requester.requests.ready):
                    self._asked = None
            if ctx.get(requester.responses.valid):
                payload = ctx.get(requester.responses.payload)
                self._answer = {name: int(payload[name]) for name in payload.shape().members}
                ctx.set(requester.retired.payload.tag, payload.tag)
                ctx.set(requester.retired.valid, int(self._granted and self._answer["outcome"] == 0))
            for access, answer in ((memory.reads, memory.data), (memory.swaps, memory.swapped)):
                if ctx.get(access.valid):
                    pending = answer, ctx.get(access.payload)
            await ctx.tick()

    def _present(self, ctx: Any, record: Any) -> None:
        dut = self._gateware
        context = dut.contexts.payload
        for name in context.shape().members:
            ctx.set(context[name].as_value() if name == "control" else context[name], int(record[name]))
        fields = ("linear", "access", "user", "implicit", "ac", "tag")
        ctx.set(dut.requester.requests.payload, {name: int(record[name]) for name in fields})
        self._granted = int(record["access"]) in (Access.WRITE, Access.RMW)

    def _answer_memory(self, ctx: Any, answer: Any, access: Any) -> None:
        fields = {"id": access.id, "error": 0}
        try:
            if "old" in access.shape().members:
                fields["done"] = self._memory.compare_exchange(access.address, access.old, access.new)
            else:
                fields["value"] = self._memory.load(access.address)
        except BusError:
            fields["error"] = 1
        ctx.set(answer.payload, fields)
        ctx.set(answer.valid, 1)
