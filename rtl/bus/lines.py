"""The line port on AXI4: lines are bursts, a swap an exclusive write of what was read exclusively [IHI 0022, A7.2]."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ptewalk.rtl.bus.axi import AddressLayout, AxiSignature, Burst, Response, WriteLayout, check_widths
from ptewalk.rtl.bus.exclusive import REFUSALS
from ptewalk.rtl.bus.line_port import LinePortSignature, check_line
from ptewalk.rtl.bus.slots import CACHE, WORD

__all__ = ["LinePort", "LinePortConfig", "LineStatusLayout"]


@dataclass(frozen=True)
class LinePortConfig:
    """Parameters of a `LinePort`.

    Parameters
    ----------
    physical_bits : int
        Of an address, 32 to 52; default 40.
    data_bits : int
        Of AXI's data: 64 (default), 128, 256 or 512.
    line_bytes : int
        64 or 128 (default).
    tags : int
        Of the port, 2 to 65: each is an AXI ID, and so a reservation; one ID more is for plain writes, and for reads
        without a link whose tag is that number. Default 9.
    prot : int
        AxPROT of every access; default 0b001, privileged and secure data.
    """

    physical_bits: int = 40
    data_bits: int = 64
    line_bytes: int = 128
    tags: int = 9
    prot: int = 0b001

    def __post_init__(self) -> None:
        if not isinstance(self.physical_bits, int) or not 32 <= self.physical_bits <= 52:
            raise ValueError(f"physical_bits must be an integer from 32 to 52, not {self.physical_bits!r}")
        check_widths(address_bits=self.physical_bits, data_bits=self.data_bits)
        check_line(data_bits=self.data_bits, line_bytes=self.line_bytes)
        if not isinstance(self.tags, int) or not 2 <= self.tags <= 65:
            raise ValueError(f"tags must be an integer from 2 to 65, not {self.tags!r}")
        if not isinstance(self.prot, int) or not 0 <= self.prot <= 7:
            raise ValueError(f"prot must be an integer from 0 to 7, not {self.prot!r}")

    @property
    def tag_bits(self) -> int:
        """Width of a tag."""
        return (self.tags - 1).bit_length()

    @property
    def id_bits(self) -> int:
        """Width of AXI's IDs."""
        return self.tags.bit_length()


class LineStatusLayout(data.StructLayout):
    """What went wrong since it was cleared.

    Members
    -------
    no_monitor : 1
        What was to be swapped was refused a reservation each of `REFUSALS` + 1 times; nothing was written.
    outcome_unknown : 1
        The bus refused a swap: whether it was written is not known.
    """

    def __init__(self) -> None:
        super().__init__({"no_monitor": 1, "outcome_unknown": 1})


class LinePort(Component):
    """A line is one burst of `data_bits`, a word one transfer of eight bytes. Costs a cycle a direction.

    A linked read is exclusive, and the swap an exclusive write of the same burst. Where the read was refused (OKAY), or
    a beat of it was, the swap is not sent, and fails; the 17th such failure of a tag in a row raises `no_monitor`, and
    is an error. A swap answered OKAY failed.

    A reset while accesses are in flight is one of the bus too.

    Parameters
    ----------
    config : LinePortConfig

    Members
    -------
    lines : In(LinePortSignature)
        `error`: SLVERR or DECERR, or a swap that was given up.
    m_axi : Out(AxiSignature)
    status : Out(LineStatusLayout), clear : In(LineStatusLayout)
        Clears the bits of `status` that are 1 here; one that is raised in the same cycle stays.
    """

    def __init__(self, config: LinePortConfig = LinePortConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        port = LinePortSignature(
            physical_bits=config.physical_bits,
            data_bits=config.data_bits,
            line_bytes=config.line_bytes,
            tag_bits=config.tag_bits,
        )
        axi = AxiSignature(address_bits=config.physical_bits, data_bits=config.data_bits, id_bits=config.id_bits)
        super().__init__(
            {
                "lines": In(port),
                "m_axi": Out(axi),
                "status": Out(LineStatusLayout()),
                "clear": In(LineStatusLayout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = self.config.tags
        r = SimpleNamespace(
            linked=Signal(count),  # what the tag read last is reserved, as far as is known
            whole=Signal(count, init=(1 << count) - 1),  # and so far each beat of it said so
            refusals=[Signal(range(REFUSALS + 1), name=f"refusals_{tag}") for tag in range(count)],
        )
        raised = {name: Signal(name=f"raised_{name}") for name in ("no_monitor", "outcome_unknown")}
        self._read(m, r)
        self._write(m, r, raised)
        for name, event in raised.items():
            m.d.sync += self.status[name].eq(event | (self.status[name] & ~self.clear[name]))
        return m

    def _address(self, tag: Value, address: Value, line: Value, lock: Value) -> dict[str, Any]:
        """The fields of a transfer of AW or AR."""
        config = self.config
        beats, size = config.line_bytes * 8 // config.data_bits, (config.data_bits // 8 - 1).bit_length()
        return {
            "id": tag,
            "addr": address,
            "len": Mux(line, beats - 1, 0),
            "size": Mux(line, size, WORD),
            "burst": Burst.INCR,
            "lock": lock,
            "cache": CACHE,
            "prot": config.prot,
            "qos": 0,
        }

    def _read(self, m: Module, r: SimpleNamespace) -> None:
        """AR stands in a register; R is handed on as it comes."""
        lines, axi = self.lines, self.m_axi
        reads, asked, found = lines.reads, lines.reads.payload, axi.r.payload
        address = Signal(AddressLayout(self.config.physical_bits, self.config.id_bits))
        m.d.comb += [
            reads.ready.eq(~axi.ar.valid | axi.ar.ready),
            axi.ar.payload.eq(address),
            axi.r.ready.eq(1),
            lines.data.valid.eq(axi.r.valid),
            *(lines.data.payload.value.eq(found.data), lines.data.payload.error.eq(found.resp[1])),
            *(lines.data.payload.last.eq(found.last), lines.data.payload.tag.eq(found.id)),
        ]
        with m.If(reads.ready):
            m.d.sync += axi.ar.valid.eq(reads.valid)
            fields = self._address(asked.tag, asked.address, asked.line, asked.link)
            m.d.sync += [address[name].eq(value) for name, value in fields.items()]
        reserved = found.resp == Response.EXOKAY
        for tag in range(self.config.tags):
            with m.If(axi.r.valid & (found.id == tag)):
                all_of_it = r.whole[tag] & reserved
                m.d.sync += [r.whole[tag].eq(found.last | all_of_it), r.linked[tag].eq(found.last & all_of_it)]
                with m.If(found.last & all_of_it):
                    m.d.sync += r.refusals[tag].eq(0)

    def _write(self, m: Module, r: SimpleNamespace, raised: dict[str, Signal]) -> None:
        """AW and W stand in registers, neither waits for the other; bursts of swaps and of reports in turn."""
        config, lines, axi = self.config, self.lines, self.m_axi
        swaps, writes = lines.swaps, lines.writes
        lanes = config.data_bits // 64
        state = SimpleNamespace(
            inside=Signal(),  # a burst
            swap=Signal(),  # is a swap's
            sent=Signal(),  # and is sent
            turn=Signal(),  # reports go first
            failed=Signal(),  # a swap that was not sent is to be answered
            given_up=Signal(),
            tag=Signal(config.tag_bits),
        )
        free, chosen, sends = Signal(), SimpleNamespace(swap=Signal(), write=Signal()), Signal()
        reserved = Signal()
        address = Signal(AddressLayout(config.physical_bits, config.id_bits))
        beat = Signal(WriteLayout(config.data_bits))
        with m.If(state.inside):
            m.d.comb += [chosen.swap.eq(state.swap & swaps.valid), chosen.write.eq(~state.swap & writes.valid)]
        with m.Else():
            m.d.comb += [
                chosen.swap.eq(swaps.valid & ~(state.turn & writes.valid) & ~state.failed),
                chosen.write.eq(writes.valid & ~chosen.swap),
            ]
        m.d.comb += [
            free.eq((~axi.aw.valid | axi.aw.ready) & (~axi.w.valid | axi.w.ready)),
            reserved.eq(r.linked.bit_select(swaps.payload.tag, 1)),
            sends.eq(Mux(state.inside, state.sent, chosen.write | reserved)),
            swaps.ready.eq(chosen.swap & free),
            writes.ready.eq(chosen.write & free),
            *(axi.aw.payload.eq(address), axi.w.payload.eq(beat)),
        ]
        first, last = ~state.inside, Mux(chosen.swap, swaps.payload.last, writes.payload.last)
        with m.If(axi.aw.ready):
            m.d.sync += axi.aw.valid.eq(0)
        with m.If(axi.w.ready):
            m.d.sync += axi.w.valid.eq(0)
        with m.If(free & (chosen.swap | chosen.write)):
            m.d.sync += [
                *(state.inside.eq(~last), state.swap.eq(chosen.swap), state.sent.eq(sends)),
                *(axi.aw.valid.eq(first & sends), axi.w.valid.eq(sends)),
                beat.data.eq(Mux(chosen.swap, swaps.payload.new, writes.payload.value)),
                beat.last.eq(last),
                state.turn.eq(Mux(first, chosen.swap, state.turn)),
            ]
            strobes = Mux(chosen.swap, swaps.payload.changed, writes.payload.strobes)
            m.d.sync += beat.strb.eq(Cat(strobes[lane].replicate(8) for lane in range(lanes)))
            with m.If(first):
                tag = Mux(chosen.swap, swaps.payload.tag, config.tags)
                where = Mux(chosen.swap, swaps.payload.address, writes.payload.address)
                line = Mux(chosen.swap, swaps.payload.line, 1)
                m.d.sync += [
                    address[name].eq(value) for name, value in self._address(tag, where, line, chosen.swap).items()
                ]
        ends = swaps.valid & swaps.ready & swaps.payload.last & ~sends
        self._answer(m, r, raised, state, ends)
        for tag in range(config.tags):
            with m.If(swaps.valid & swaps.ready & swaps.payload.last & (swaps.payload.tag == tag)):
                m.d.sync += r.linked[tag].eq(0)
                with m.If(ends & (r.refusals[tag] != REFUSALS)):
                    m.d.sync += r.refusals[tag].eq(r.refusals[tag] + 1)
                with m.If(ends):
                    m.d.sync += state.given_up.eq(r.refusals[tag] == REFUSALS)
        with m.If(ends):
            m.d.sync += [state.failed.eq(1), state.tag.eq(swaps.payload.tag)]

    def _answer(
        self, m: Module, r: SimpleNamespace, raised: dict[str, Signal], state: SimpleNamespace, ends: Value
    ) -> None:
        """B goes to whom its ID says; a swap that was not sent is answered when no B is."""
        found, lines = self.m_axi.b, self.lines
        plain = found.payload.id == self.config.tags
        answer = lines.swapped.payload
        m.d.comb += [
            found.ready.eq(1),
            *(lines.written.valid.eq(found.valid & plain), lines.written.payload.error.eq(found.payload.resp[1])),
            *(lines.swapped.valid.eq(found.valid & ~plain), answer.tag.eq(found.payload.id)),
            answer.done.eq(found.payload.resp == Response.EXOKAY),
            answer.error.eq(found.payload.resp[1]),
            raised["outcome_unknown"].eq(found.valid & ~plain & found.payload.resp[1]),
        ]
        with m.If(state.failed & (~found.valid | plain)):
            m.d.comb += [
                *(lines.swapped.valid.eq(1), answer.tag.eq(state.tag)),
                *(answer.done.eq(0), answer.error.eq(state.given_up), raised["no_monitor"].eq(state.given_up)),
            ]
            m.d.sync += state.failed.eq(0)
