"""The unit: an MMU that caches, with registers through which alone all of it can be used."""

from dataclasses import replace
from typing import Any

from amaranth.hdl import Cat, Const, Elaboratable, Module, ResetInserter, Signal, Value, unsigned
from amaranth.lib.wiring import Component, In, Member, Out, connect, flipped

from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.core import Bridge
from ptewalk.rtl.bus.axi import AxiSignature
from ptewalk.rtl.bus.axi_lite import AxiLiteSignature
from ptewalk.rtl.bus.exclusive import ExclusivePortConfig
from ptewalk.rtl.bus.gate import AxiGate
from ptewalk.rtl.bus.join import AxiJoin
from ptewalk.rtl.bus.lines import LinePort, LinePortConfig
from ptewalk.rtl.bus.monitor import ExclusiveMonitor
from ptewalk.rtl.bus.on_axi import word_port
from ptewalk.rtl.bus.plain_words import PlainWords
from ptewalk.rtl.bus.qos import stamp_qos
from ptewalk.rtl.bus.self_test import SelfTest, SelfTestLayout
from ptewalk.rtl.bus.slots import PortStatusLayout
from ptewalk.rtl.caching_mmu import CachingMmu, CachingMmuConfig
from ptewalk.rtl.engine.beside import EngineBeside
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.interfaces import MemoryPortSignature
from ptewalk.rtl.log.on_axi import RecordPort
from ptewalk.rtl.registers.by_words import ByWords
from ptewalk.rtl.registers.commands import Commands
from ptewalk.rtl.registers.config import MemoryPath, UnitConfig, built_values
from ptewalk.rtl.registers.counting import Counters, growth
from ptewalk.rtl.registers.engine import attach
from ptewalk.rtl.registers.engine_map import TABLE_COMMAND
from ptewalk.rtl.registers.file import ADDRESS_BITS, RegisterFile
from ptewalk.rtl.registers.log import attach_log
from ptewalk.rtl.registers.map import (
    COMMAND_BITS,
    COUNTERS,
    ID,
    OF_ENGINE,
    OF_LISTS,
    OF_LOG,
    OF_RINGS,
    REGISTERS,
    SOURCES,
    VERSION,
    Command,
)
from ptewalk.rtl.registers.requesters import RequesterShare
from ptewalk.rtl.registers.rings import DESCRIPTOR_WORDS, TableRings
from ptewalk.rtl.registers.share import MemoryShare
from ptewalk.rtl.registers.soft_reset import Refusal, SoftReset

__all__ = ["MemoryPath", "Unit", "UnitConfig", "UnitCore"]


def _tests(physical_bits: int) -> dict[str, Member]:
    """The members of who has a `SelfTest` behind the port."""
    return {
        "test": Out(1),
        "test_address": Out(unsigned(physical_bits)),
        "tested": In(1),
        "test_result": In(SelfTestLayout()),
        "limit": Out(unsigned(7)),
    }


def _resets(*, bridge: bool) -> dict[str, Member]:
    """The members of who is reset by software."""
    front = {"front": Out(1), "front_quiet": In(1)} if bridge else {}
    return {**front, "back": Out(1), "back_quiet": In(1), "reset": Out(1)}


class UnitCore(Component):
    """An MMU that caches and its registers, with a memory port.

    Commands are carried out in the order in which COMMAND took them, each when the one before has ended: so a context
    is in force, and an invalidation waited for, before what was written later is begun.

    Parameters
    ----------
    mmu : CachingMmuConfig
    queue_depth : int
        As in `UnitConfig`.
    path : MemoryPath
    bridge : BridgeConfig or None
        `mmu` has tags one bit wider than its, and grants reads.
    engine : EngineConfig or None
        Of a table engine beside the MMU.
    rings : bool
        As in `UnitConfig`.

    Members
    -------
    s_axil : In(AxiLiteSignature)
        The map is docs/registers.md.
    irq : Out(1)
        High while an interrupt that is unmasked is raised; one cycle late.
    memory : Out(MemoryPortSignature)
    port_status : In(PortStatusLayout), port_clear : Out(PortStatusLayout), unknown_address : In(physical_bits)
        Of the port behind `memory`; 0 where it has none.
    test : Out(1), test_address : Out(physical_bits), tested : In(1), test_result : In(SelfTestLayout)
        As the start, address, done and result of a `SelfTest` behind the port; only where `path` has one. Elsewhere
        the command SELFTEST ends at once, and nothing has run.
    limit : Out(7)
        Reservations that the port may have at a time; 0: any number. Likewise.
    front, back : Out(1), front_quiet, back_quiet : In(1), reset : Out(1)
        As those of a `SoftReset`; the front is the bridge's `s_axi`, and a core without one has no front. What is
        round the core is reset with it. Only where `path` has a reset by software.
    s_axi : In(AxiSignature), m_axi : Out(AxiSignature)
        The bridge's; only with one.
    lines : Out(LinePortSignature)
        The engine's; only with one.
    records : Out(RecordPortSignature)
        The MMU's log's; only with one.
    ring_words : Out(PlainWordsSignature)
        Accesses to rings; only with them.
    """

    def __init__(
        self,
        mmu: CachingMmuConfig,
        *,
        queue_depth: int,
        path: MemoryPath,
        bridge: BridgeConfig | None = None,
        engine: EngineConfig | None = None,
        rings: bool = False,
    ) -> None:
        walker = mmu.walker
        bits = walker.physical_bits
        parts = {"bridge": bridge is not None, "rings": rings}
        self._built = built_values(mmu, queue_depth, path, engine=engine, **parts)
        self._beside = None if engine is None else EngineBeside(engine)
        self._limit = path.exclusive_ids
        self._by_words: ByWords | None = None
        if engine is not None and path.selftest:
            widths = {name: getattr(engine, name) for name in ("physical_bits", "data_bits", "line_bytes", "tag_bits")}
            self._by_words = ByWords(**widths)
        self.bridge = None if bridge is None else Bridge(replace(bridge, read_grants=True))
        self._bits, self._walkers, self._tests = bits, mmu.walkers, path.selftest
        self._resets = SoftReset() if path.soft_reset else None
        self.mmu = CachingMmu(mmu)
        self._logs = mmu.log is not None
        there = {OF_ENGINE: engine is not None, OF_LISTS: engine is not None and engine.lists, OF_LOG: self._logs}
        there |= {OF_RINGS: rings}
        self._absent = {name for names, built in there.items() if not built for name in names}
        self.rings = TableRings(bits) if rings else None
        loaded = TABLE_COMMAND[: 2 * DESCRIPTOR_WORDS] if rings else ()
        registers = tuple(one for one in REGISTERS if one.name not in self._absent)
        self.file = RegisterFile(
            registers, loadable=frozenset(register.name for register in loaded), clears=path.soft_reset
        )
        self.commands = Commands(
            physical_bits=bits,
            tag_bits=walker.tag_bits,
            soft_dirty=walker.soft_dirty,
            depth=queue_depth,
            read_grants=mmu.read_grants,
            tables=engine is not None,
        )
        super().__init__(
            {
                "s_axil": In(AxiLiteSignature(address_bits=ADDRESS_BITS)),
                "irq": Out(1),
                "memory": Out(MemoryPortSignature(bits, walkers=mmu.walkers)),
                "port_status": In(PortStatusLayout()),
                "port_clear": Out(PortStatusLayout()),
                "unknown_address": In(unsigned(bits)),
                **(_tests(bits) if path.selftest else {}),
                **(_resets(bridge=bridge is not None) if path.soft_reset else {}),
                **({} if self.bridge is None else {n: self.bridge.signature.members[n] for n in ("s_axi", "m_axi")}),
                **({} if self._beside is None else {"lines": self._beside.signature.members["port"]}),
                **({} if self.rings is None else {"ring_words": self.rings.signature.members["words"]}),
                **({"records": self.mmu.signature.members["records"]} if self._logs else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.file = self.file
        if self._resets is None:
            self._connect(m)
            return m
        # All but the registers' own interface, and what resets it, is inside.
        m.submodules.resets = resets = self._resets
        inside = Module()
        self._connect(inside)
        m.submodules.inside = ResetInserter({"sync": resets.reset})(inside)
        m.d.comb += [
            *(resets.ask.eq(self.file.told.DO.soft_reset), self.file.clear.eq(resets.reset)),
            *(self.back.eq(resets.back), resets.back_quiet.eq(self.back_quiet), self.reset.eq(resets.reset)),
            *(self.file.now.STATUS.resetting.eq(resets.busy), resets.front_quiet.eq(1)),
        ]
        if self.bridge is not None:
            m.d.comb += self.front.eq(resets.front)
            m.d.comb += resets.front_quiet.eq(self.front_quiet & ~self.bridge.status.busy)
        return m

    def _connect(self, m: Module) -> None:
        """Everything but the reset."""
        file = self.file
        m.submodules.mmu = mmu = self.mmu
        m.submodules.commands = commands = self.commands
        m.submodules.share = share = MemoryShare(self._bits, walkers=self._walkers)
        connect(m, flipped(self.s_axil), file.bus)
        connect(m, mmu.memory, share.walker)
        connect(m, commands.words, share.words)
        memory = share.memory if self._by_words is None else self._swap_by_words(m, share.memory, self._by_words)
        connect(m, memory, flipped(self.memory))
        if self._tests:
            m.d.comb += self.limit.eq(file.held.LIMITS.exclusive_ids)
            m.d.comb += [
                *(self.test.eq(share.test), self.test_address.eq(commands.words.asked.payload.address)),
                share.tested.eq(self.tested),
                *(file.now.SELFTEST[str(name)].eq(self.test_result[name]) for name, _ in self.test_result.shape()),
            ]
        else:
            m.d.comb += share.tested.eq(1)
        self._ask(m)
        connect(m, commands.contexts, mmu.contexts)
        self._invalidate(m)
        now, told = file.now, file.told
        for (register, name), value in self._built.items():
            if register not in self._absent:
                m.d.comb += now[register][name].eq(value)
        m.d.comb += [now.ID.value.eq(ID), now.VERSION.minor.eq(VERSION[1]), now.VERSION.major.eq(VERSION[0])]
        self._stage(m)
        offered = file.offered.COMMAND[:COMMAND_BITS]
        absent = {Command.TABLE} if self._beside is None else set()
        absent |= {Command.RING} if self.rings is None else set()
        known = Cat(offered == kind for kind in Command if kind not in absent).any()
        m.d.comb += [
            commands.kind.eq(told.COMMAND.kind),
            file.refuse.COMMAND.eq((commands.room == 0) | ~known | now.STATUS.resetting),
            commands.retire.eq(told.DO.retire),
            # What the bridge has offered is taken before a reset by software, beside any grant.
            mmu.supervisor.drain.eq(commands.drain & ~now.STATUS.resetting),
            commands.drained.eq(mmu.supervisor.drained),
            now.ANSWER.leaf_level.eq(commands.answer.level),
            *(now.ANSWER[name].eq(commands.answer[name]) for name in ("outcome", "pwt", "pcd", "pat", "code")),
        ]
        for name, value in (
            ("ANSWER_PHYSICAL", commands.answer.physical),
            ("MEMORY_VALUE", commands.value),
            ("UNKNOWN_ADDRESS", self.unknown_address),
            ("FAULT_LINEAR", mmu.supervisor.faults.payload.linear),
        ):
            m.d.comb += Cat(now[f"{name}_LO"].value, now[f"{name}_HI"].value).eq(value)
        with m.If(commands.ended):
            m.d.sync += now.DONE.value.eq(now.DONE.value + 1)
        faults = mmu.supervisor.faults
        foreign = Const(0) if self.bridge is None else ~faults.payload.tag[-1]  # the bridge has a record of its own
        m.d.comb += [
            now.FAULT.valid.eq(faults.valid & ~foreign),
            now.FAULT.tag.eq(faults.payload.tag),
            now.FAULT.code.eq(faults.payload.code),
            faults.ready.eq(told.DO.pop_fault | foreign),
        ]
        self._status(m)
        of_log: tuple[dict[str, Value], dict[str, Value]] = ({}, {})
        if self._logs:
            connect(m, mmu.records, flipped(self.records))
            of_log = attach_log(m, file, mmu.log)
        self._interrupts(m, *of_log)
        self._count(m)

    def _invalidate(self, m: Module) -> None:
        """Invalidations go to the MMU; where there is an engine, by it."""
        commands, mmu, beside = self.commands, self.mmu, self._beside
        if beside is None:
            connect(m, commands.invalidations, mmu.invalidations)
            connect(m, mmu.completions, commands.completions)
            return
        m.submodules.beside = beside
        connect(m, commands.invalidations, beside.software)
        connect(m, beside.told, commands.completions)
        connect(m, beside.invalidations, mmu.invalidations)
        connect(m, mmu.completions, beside.completions)
        if self._by_words is None:
            connect(m, beside.port, flipped(self.lines))
        else:
            connect(m, beside.port, self._by_words.above)
            connect(m, self._by_words.below, flipped(self.lines))
        attach(m, self.file, commands, beside, self.rings)
        if self.rings is not None:
            m.submodules.rings = self.rings
            connect(m, self.rings.words, flipped(self.ring_words))

    def _swap_by_words(self, m: Module, walker: Any, by_words: ByWords) -> Any:
        """What the engine swaps word by word has turns with the walker; that it does so changes between commands."""
        beside, limits = self._beside, self.file.held.LIMITS
        assert beside is not None
        m.submodules.by_words = by_words
        m.submodules.words_share = share = MemoryShare(self._bits)
        connect(m, walker, share.walker)
        connect(m, by_words.asked, share.words)
        few = (limits.exclusive_ids != 0) & (limits.exclusive_ids < self._limit)
        with m.If(~beside.table_commands.valid):
            m.d.sync += by_words.words.eq(limits.words | few)
        m.d.comb += [beside.engine.singles.eq(by_words.words), share.tested.eq(1)]
        return share.memory

    def _ask(self, m: Module) -> None:
        """Who asks the MMU, and what the registers have of the bridge."""
        commands, mmu, bridge = self.commands, self.mmu, self.bridge
        if bridge is None:
            connect(m, commands.requester, mmu.requester)
            return
        m.submodules.bridge = bridge
        m.submodules.requesters = share = RequesterShare(
            physical_bits=bridge.config.physical_bits, bridge_bits=bridge.config.tag_bits
        )
        connect(m, commands.requester, share.window)
        stops: Value = Const(0)
        if self._resets is None:
            connect(m, bridge.mmu, share.bridge)
        else:
            stops = self._resets.busy
            m.submodules.refusal = refusal = Refusal(
                physical_bits=bridge.config.physical_bits, tag_bits=bridge.config.tag_bits
            )
            connect(m, bridge.mmu, refusal.above)
            connect(m, refusal.below, share.bridge)
            m.d.comb += refusal.refuses.eq(stops)
        connect(m, share.mmu, mmu.requester)
        connect(m, flipped(self.s_axi), bridge.s_axi)
        connect(m, bridge.m_axi, flipped(self.m_axi))
        now, held, told, control = self.file.now, self.file.held, self.file.told, bridge.control
        record = bridge.faults.payload
        m.d.comb += [
            commands.retiring.eq(share.retiring),
            *(Value.cast(control[str(name)]).eq(held.CTRL[str(name)]) for name, _ in held.CTRL.shape()),
            *(control[str(name)].eq(told.RESUME[str(name)]) for name, _ in told.RESUME.shape()),
            *(control.timeout.eq(held.TIMEOUT.value), control.pat_map.eq(held.PAT_MAP.value)),
            control.clear_overflow.eq(told.STATUS.bridge_overflow),
            control.clear_timeout.eq(told.STATUS.stall_timeout),
            now.STATUS.bridge_busy.eq(bridge.status.busy),
            now.STATUS.bridge_overflow.eq(bridge.status.fault_overflow),
            *(now.STATUS[n].eq(bridge.status[n]) for n in ("stalled_read", "stalled_write", "stall_timeout")),
            now.BRIDGE_FAULT.valid.eq(bridge.faults.valid),
            *(now.BRIDGE_FAULT[n].eq(Value.cast(record[n])) for n in ("write", "stalled", "kind", "code")),
            *(now.BRIDGE_BURST.id.eq(record.id), now.BRIDGE_BURST.len.eq(record.len)),
            Cat(now.BRIDGE_LINEAR_LO.value, now.BRIDGE_LINEAR_HI.value).eq(record.linear),
            bridge.faults.ready.eq(told.DO.pop_bridge_fault),
        ]
        with m.If(stops):  # what came in is refused; so is what waits
            m.d.comb += [control.enable.eq(1), control.fault_mode.eq(0), control.retry_read.eq(0)]
            m.d.comb += [control.retry_write.eq(0), control.abort_read.eq(1), control.abort_write.eq(1)]

    def _stage(self, m: Module) -> None:
        """What software has staged, as the parts take it."""
        held, staged = self.file.held, self.commands.staged

        def wide(name: str) -> Value:
            return Cat(held[f"{name}_LO"].value, held[f"{name}_HI"].value)

        context, waited, asked, word = staged.context, staged.invalidation, staged.request, staged.word
        control = {str(name) for name, _ in context.control.shape()}
        m.d.comb += [
            context.root.eq(wide("CR3")),
            *(context.control[name].eq(held.CONTROL[name]) for name in control),
            *(context.pkru.eq(held.PKRU.value), context.pkrs.eq(held.PKRS.value)),
            *(context.pcid.eq(held.PCID.pcid), context.keep.eq(held.PCID.keep)),
            *(waited.linear.eq(wide("INV_LINEAR")), waited.pcid.eq(held.INV.pcid)),
            *(waited.kind.eq(held.INV.kind), Value.cast(waited.wait).eq(held.INV.wait)),
            asked.request.linear.eq(wide("REQUEST_LINEAR")),
            *(asked.request[name].eq(held.REQUEST[name]) for name in ("access", "user", "implicit", "ac")),
            *(asked.request.tag.eq(0), asked.retire.eq(held.REQUEST.retire)),
            *(word.address.eq(wide("MEMORY_ADDRESS") & ~7), word.old.eq(wide("MEMORY_OLD"))),
            word.new.eq(wide("MEMORY_NEW")),
        ]
        if "track" in dict(context.shape()):
            m.d.comb += [context.track.eq(held.TRACK.track), context.saved_dirty.eq(held.TRACK.saved_dirty)]

    def _status(self, m: Module) -> None:
        """What STATUS says, and clears."""
        now, told, commands, supervisor = self.file.now, self.file.told, self.commands, self.mmu.supervisor
        m.d.comb += [
            *(now.STATUS[name].eq(getattr(commands, name)) for name in ("busy", "room", "granted")),
            *(now.STATUS[name].eq(getattr(commands, name)) for name in ("memory_done", "memory_error")),
        ]
        for status, clear in ((supervisor.status, supervisor.clear), (self.port_status, self.port_clear)):
            for name, _ in status.shape():
                m.d.comb += [now.STATUS[name].eq(status[name]), clear[name].eq(told.STATUS[name])]

    def _interrupts(self, m: Module, lasting: dict[str, Value], events: dict[str, Value]) -> None:
        """Sources that happen are kept until they are cleared; one that is set in the cycle of its clear stays.

        Those that are given are the log's.
        """
        now, held, told = self.file.now, self.file.held, self.file.told
        status, port = self.mmu.supervisor.status, self.port_status
        seen = {}  # a status bit is raised in this cycle
        for name, bit in (
            ("fault_overflow", status.fault_overflow),
            ("bridge_overflow", now.STATUS.bridge_overflow),
            ("stall_timeout", now.STATUS.stall_timeout),
            ("no_monitor", port.no_monitor),
            ("unknown", port.outcome_unknown),
        ):
            last = Signal(name=f"{name}_last")
            m.d.sync += last.eq(bit)
            seen[name] = bit & ~last
        lasting = lasting | {"fault": now.FAULT.valid | now.BRIDGE_FAULT.valid}
        if self._beside is not None:
            lasting["table_told"] = now.TABLE_TOLD.valid
        if self.rings is not None:
            lasting["ring_told"] = self.rings.told != held.DONE_HEAD.value
        events = events | {
            "fault_overflow": seen["fault_overflow"] | seen["bridge_overflow"],
            "stall_timeout": seen["stall_timeout"],
            "command_done": self.commands.ended,
            "bus_error": self.commands.failed | seen["unknown"],
            "no_monitor": seen["no_monitor"],
        }
        for name in SOURCES:
            kept = Signal(name=f"irq_{name}")
            sets = told.IRQ_SET[name] | events.get(name, 0)
            m.d.sync += kept.eq((kept & ~told.IRQ_RAW[name]) | sets)
            m.d.comb += [
                now.IRQ_RAW[name].eq(kept | lasting.get(name, 0)),
                now.IRQ_NOW[name].eq(now.IRQ_RAW[name] & held.IRQ_MASK[name]),
            ]
        m.d.sync += self.irq.eq(Value.cast(now.IRQ_NOW).any())

    def _count(self, m: Module) -> None:
        """The counters, 64 bits wide."""
        m.submodules.counters = counters = Counters(tuple(COUNTERS))
        requests = self.mmu.requester.requests
        counted: dict[str, Value | int] = {"cycles": 1, "requests": requests.valid & requests.ready}
        for name in COUNTERS:
            if name not in counted and hasattr(self.mmu, name):
                counted |= growth(m, getattr(self.mmu, name), name)
        m.d.comb += [counters.by[name].eq(value) for name, value in counted.items()]
        m.d.comb += [counters.snapshot.eq(self.file.told.DO.snapshot)]
        m.d.comb += [counters.clear.eq(self.file.told.DO.clear_counters)]
        for name in COUNTERS:
            low, high = (self.file.now[f"COUNT_{name.upper()}_{half}"].value for half in ("LO", "HI"))
            m.d.comb += Cat(low, high).eq(counters.copies[name])


class Unit(Component):
    """A `UnitCore` whose memory port is an AXI4 manager.

    Parameters
    ----------
    config : UnitConfig

    Members
    -------
    s_axil : In(AxiLiteSignature), irq : Out(1)
        As the core's.
    m_axi : Out(AxiSignature)
        As that of `AxiMmu`. With a bridge this is `t_axi`, and `m_axi` the bridge's, with `s_axi`: In(AxiSignature).
    """

    def __init__(self, config: UnitConfig = UnitConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        self.core = UnitCore(
            config.inner,
            queue_depth=config.queue_depth,
            path=config.path,
            bridge=config.bridge,
            engine=config.engine,
            rings=config.rings,
        )
        self._tables = "m_axi" if config.bridge is None else "t_axi"
        self.port = word_port(config.port, limited=config.mmu.walkers > 1)
        axi = self.port.signature.members["m_axi"]
        if config.line_port is not None or config.record_id is not None:
            bits = {"address_bits": config.port.physical_bits, "data_bits": config.table_bits}
            axi = Out(AxiSignature(**bits, id_bits=config.id_bits, atomic=config.table_atomic))
        inside = self.core.signature.members
        members = {name: inside[name] for name in ("s_axil", "irq", "s_axi", "m_axi") if name in inside}
        super().__init__({**members, self._tables: axi})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = self.core
        port = self.port
        m.submodules.port = self._under_reset(port)
        connect(m, flipped(self.s_axil), core.s_axil)
        connect(m, core.memory, port.memory)
        m.d.comb += [
            self.irq.eq(core.irq),
            core.port_status.eq(port.status),
            port.clear.eq(core.port_clear),
            core.unknown_address.eq(port.unknown_address),
        ]
        axi = self._stamped(m, port, "port")
        if isinstance(self.config.port, ExclusivePortConfig) and "limit" in port.signature.members:
            m.d.comb += port.limit.eq(core.limit)
        if self.config.line_port is not None:
            axi = self._join(m, self.config.line_port, axi)
        if self.config.record_id is not None:
            axi = self._join_records(m, self.config.record_id, axi)
        if self.config.ring_id is not None:
            axi = self._join_rings(m, self.config.ring_id, axi)
        tables = getattr(self, self._tables)
        m.submodules.back = back = AxiGate.of(tables)
        connect(m, axi, back.s_axi)
        axi = back.m_axi
        m.d.comb += [back.stop.eq(core.back), core.back_quiet.eq(back.quiet)]
        if isinstance(self.config.port, ExclusivePortConfig):
            axi = self._test(m, back)
        if self.config.monitor:
            monitor = ExclusiveMonitor(self.config.reservations)
            m.submodules.monitor = self._under_reset(monitor)
            connect(m, axi, monitor.s_axi)
            axi = monitor.m_axi
        connect(m, axi, flipped(tables))
        if self.config.bridge is not None:
            m.submodules.front = front = AxiGate.of(self.s_axi)
            connect(m, flipped(self.s_axi), front.s_axi)
            connect(m, front.m_axi, core.s_axi)
            m.d.comb += [front.stop.eq(core.front), core.front_quiet.eq(front.quiet)]
            connect(m, core.m_axi, flipped(self.m_axi))
        return m

    def _stamped(self, m: Module, port: Any, field: str, name: str | None = None) -> Any:
        """The interface of an own port, with AxQOS of that field."""
        axi = port.signature.members["m_axi"].signature.flip().create(path=(f"{name or field}_axi",))
        connect(m, port.m_axi, axi)
        stamp_qos(m, axi, self.core.file.held.QOS[field], name or field)
        return flipped(axi)

    def _under_reset(self, component: Component) -> Elaboratable:
        """The same, which begins anew with the core."""
        return ResetInserter({"sync": self.core.reset})(component)

    def _test(self, m: Module, back: AxiGate) -> Any:
        """The self-test, of every ID that reserves, when the gate is closed for it and nothing is outstanding."""
        core, config = self.core, self.config
        bits, line_bytes = config.port, config.engine.line_bytes if config.engine else 8
        test = SelfTest(
            physical_bits=bits.physical_bits,
            data_bits=config.table_bits,
            id_bits=config.id_bits,
            prot=config.prot,
            ids=config.reserving,
            line_bytes=line_bytes,
        )
        m.submodules.self_test = self._under_reset(test)
        connect(m, back.m_axi, test.s_axi)
        m.d.comb += [
            *(back.stop.eq(core.back | core.test), core.back_quiet.eq(back.quiet & ~test.busy)),
            *(test.start.eq(core.test & back.quiet & ~core.back), test.address.eq(core.test_address)),
            *(core.tested.eq(test.done), core.test_result.eq(test.result)),
        ]
        return test.m_axi

    def _join(self, m: Module, config: LinePortConfig, walker: Any) -> Any:
        """The engine's lines before the walker's words, on one bus; what went wrong with either is in STATUS."""
        core, ids = self.core, config.tags + 1
        lines = LinePort(config)
        m.submodules.lines = self._under_reset(lines)
        join = AxiJoin(
            address_bits=config.physical_bits,
            data_bits=config.data_bits,
            id_bits=self.config.table_id_bits,
            ids=ids,
            alone=ids,
        )
        m.submodules.join = self._under_reset(join)
        connect(m, core.lines, lines.lines)
        connect(m, self._stamped(m, lines, "engine"), join.s_axi)
        connect(m, walker, join.t_axi)
        for name, _ in lines.status.shape():
            m.d.comb += lines.clear[name].eq(core.port_clear[name])
            with m.If(lines.status[name]):
                m.d.comb += core.port_status[name].eq(1)
        return join.m_axi

    def _join_records(self, m: Module, alone: int, tables: Any) -> Any:
        """Accesses to tables, and the log's records with an ID of their own, on one bus."""
        config, log = self.config, self.config.mmu.log
        assert log is not None
        bits = {"address_bits": config.port.physical_bits, "data_bits": config.table_bits}
        port = RecordPort(**bits, id_bits=log.id_bits, prot=config.prot)
        join = AxiJoin(**bits, id_bits=config.record_id_bits, ids=alone, alone=alone, atomic=config.table_atomic)
        m.submodules.record_port, m.submodules.record_join = self._under_reset(port), self._under_reset(join)
        connect(m, self.core.records, port.records)
        connect(m, tables, join.s_axi)
        connect(m, self._stamped(m, port, "log"), join.t_axi)
        return join.m_axi

    def _join_rings(self, m: Module, alone: int, others: Any) -> Any:
        """All else, and words of rings with an ID of their own, on one bus."""
        config = self.config
        bits = {"address_bits": config.port.physical_bits, "data_bits": config.table_bits}
        port = PlainWords(**bits, prot=config.prot)
        join = AxiJoin(**bits, id_bits=config.id_bits, ids=1 << config.record_id_bits, alone=alone, atomic=False)
        m.submodules.ring_port, m.submodules.ring_join = self._under_reset(port), self._under_reset(join)
        connect(m, self.core.ring_words, port.words)
        connect(m, others, join.s_axi)
        connect(m, self._stamped(m, port, "engine", "rings"), join.t_axi)
        return join.m_axi
