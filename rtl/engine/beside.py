"""A table engine beside an MMU: its commands end with invalidations and a drain, and those of software cover it."""

from amaranth.hdl import Module, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.model import x86
from ptewalk.rtl.bus.line_port import LinePortSignature
from ptewalk.rtl.engine.ending import Ending, Invalidations
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.table_engine import CommandLayout, CompletionLayout, EngineConfig, TableEngine
from ptewalk.rtl.layouts import CompletionLayout as WaitedLayout
from ptewalk.rtl.layouts import InvalidationLayout

__all__ = ["EngineBeside", "MmuCommandLayout"]


class MmuCommandLayout(data.StructLayout):
    """A command of the engine, and whose translations it makes stale.

    Members
    -------
    Those of `CommandLayout`, and
    pcid : unsigned(12)
        Of the address space; a list's, too: that in `list` does not count.
    """

    def __init__(self, physical_bits: int, *, lists: bool = False) -> None:
        fields = {str(name): field.shape for name, field in CommandLayout(physical_bits, lists=lists)}
        super().__init__({**fields, "pcid": unsigned(x86.PCID_BITS)})


class EngineBeside(Component):
    """A `TableEngine`, and what stands between it and an MMU that caches.

    Parameters
    ----------
    config : EngineConfig

    Members
    -------
    table_commands : In(stream of MmuCommandLayout), table_completions : Out(stream of CompletionLayout)
    table_abort : In(1)
        As the engine's; a command that may change entries is told when the MMU has forgotten what it dealt with, and
        stores that were granted before have retired.
    software : In(stream of InvalidationLayout), told : Out(stream of rtl.layouts.CompletionLayout, always ready)
        Software's invalidations, and those of them that waited and are complete.
    invalidations, completions
        The other side of both: the MMU's.
    port : Out(LinePortSignature)
    """

    def __init__(self, config: EngineConfig = EngineConfig()) -> None:  # noqa: B008 - frozen
        self._lists = config.lists
        self.engine = TableEngine(config)
        self.invalidating = Invalidations()
        invalidations = stream.Signature(InvalidationLayout())
        completions = stream.Signature(WaitedLayout(), always_ready=True)
        widths = {name: getattr(config, name) for name in ("physical_bits", "data_bits", "line_bytes", "tag_bits")}
        super().__init__(
            {
                "table_commands": In(stream.Signature(MmuCommandLayout(config.physical_bits, lists=config.lists))),
                "table_completions": Out(stream.Signature(CompletionLayout(lists=config.lists))),
                "table_abort": In(1),
                "software": In(invalidations),
                "told": Out(completions),
                "invalidations": Out(invalidations),
                "completions": In(completions),
                "port": Out(LinePortSignature(**widths)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = engine = self.engine
        m.submodules.invalidating = invalidating = self.invalidating
        m.submodules.ending = ending = Ending()
        connect(m, flipped(self.software), invalidating.software)
        connect(m, invalidating.told, flipped(self.told))
        connect(m, invalidating.invalidations, flipped(self.invalidations))
        connect(m, flipped(self.completions), invalidating.completions)
        connect(m, ending.invalidations, invalidating.own)
        connect(m, engine.port, flipped(self.port))
        command, told = self.table_commands.payload, engine.completions
        changes = command.range.changes | command.moves
        span, stopped = ending.span, told.payload.stopped != Stop.DONE
        over = ~told.payload.more
        m.d.comb += [
            *(engine.pause.eq(invalidating.pause), engine.abort.eq(self.table_abort)),
            *(invalidating.paused.eq(engine.paused), invalidating.stepped.eq(engine.stepped)),
            *(engine.commands.payload[str(name)].eq(command[str(name)]) for name, _ in engine.commands.payload.shape()),
            engine.commands.valid.eq(self.table_commands.valid),
            self.table_commands.ready.eq(engine.commands.ready),
            ending.drained.eq(invalidating.drained),
            ending.valid.eq(told.valid & changes & over),
            *(span.page.eq(command.range.page), span.la57.eq(command.range.la57), span.pcid.eq(command.pcid)),
            # Where it stopped short, something of the page at which it did may have been written.
            span.pages.eq(told.payload.page - command.range.page + stopped),
            # And behind it lines that were begun may have been moved.
            span.whole.eq(engine.met_leaf | (command.moves & stopped)),
            *(span.shared.eq(engine.met_global), span.reads.eq(command.moves)),
            self.table_completions.payload.eq(told.payload),
            self.table_completions.valid.eq(told.valid & (ending.over | ~(changes & over))),
            told.ready.eq(self.table_completions.ready & self.table_completions.valid),
        ]
        if self._lists:
            m.d.comb += engine.commands.payload.list.pcid.eq(command.pcid)
            with m.If(command.lists & ~command.moves):
                # Records name pages anywhere; `page` counts records.
                m.d.comb += [span.pages.eq(told.payload.page + stopped), span.whole.eq(1)]
        return m
