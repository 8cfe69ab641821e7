"""The table engine behind registers: what software has staged for it, and what it tells."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from ptewalk.rtl.engine.beside import EngineBeside
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.registers.commands import Commands
from ptewalk.rtl.registers.file import RegisterFile
from ptewalk.rtl.registers.map import BY_NAME, Command
from ptewalk.rtl.registers.rings import TableRings

__all__ = ["attach"]

_KINDS = ("present", "hidden", "swap")
_MASKS = ("clear", "set", "match")
_RANGE = ("la57", "changes", "splits", "whole_leaves")
_CHANGE = ("arm", "save_dirty", "only_matching", "written")
_WORDS = ("soft_dirty", "uffd_wp", "inverts", "has_marker", "marker")
_TOLD = ("more", "failed", "given_up", "lost", "stopped")


def attach(
    m: Module, file: RegisterFile, commands: Commands, beside: EngineBeside, rings: TableRings | None = None
) -> None:
    """Connects the registers `map.OF_ENGINE`, with lists `map.OF_LISTS`, and the command TABLE with an engine.

    `commands` is made for one. A completion stays on show until DO.pop_table takes it; the command ends with its last
    one. DO.abort_table counts for the first TABLE that has not ended, in work or not.
    """
    now, held, told = file.now, file.held, file.told
    command, found = beside.table_commands.payload, beside.table_completions.payload

    def wide(registers: Any, name: str) -> Value:
        return Cat(registers[f"TABLE_{name}_LO"].value, registers[f"TABLE_{name}_HI"].value)

    flags = held.TABLE
    m.d.comb += [
        command.range.root.eq(wide(held, "ROOT")),
        *(command.range.page.eq(wide(held, "PAGE")), command.range.pages.eq(wide(held, "PAGES"))),
        *(command.range[name].eq(flags[name]) for name in _RANGE),
        *(command.change[name].eq(flags[name]) for name in _CHANGE),
        *(command.words[name].eq(held.TABLE_WORDS[name]) for name in _WORDS),
        command.words.swap_soft_dirty.eq(held.TABLE_SWAP_WORDS.soft_dirty),
        command.words.swap_uffd_wp.eq(held.TABLE_SWAP_WORDS.uffd_wp),
        command.change.empty.eq(wide(held, "EMPTY")),
        *(command.change.spares[part].eq(held.TABLE_SPARES[part]) for part in ("low", "high")),
        *(command.ors.eq(flags.ors), command.unit.eq(flags.unit)),
        *(Value.cast(command.report).eq(flags.report), command.address.eq(wide(held, "ADDRESS") & ~7)),
        *(command.moves.eq(flags.moves), command.move.target.eq(wide(held, "TARGET"))),
        *(command.move.level.eq(flags.move_level), command.move.entries.eq(wide(held, "ENTRIES"))),
        *(command.move.drops_markers.eq(flags.drops_markers), command.pcid.eq(flags.pcid)),
    ]
    if "lists" in dict(command.shape()):
        ring = held.TABLE_LIST
        m.d.comb += [
            *(command.lists.eq(ring.lists & ~commands.ring), command.list.size.eq(ring.size)),
            command.list.base.eq(wide(held, "LIST_BASE")),
            *(command.list_first.eq(held.TABLE_LIST_FIRST.value), command.list_count.eq(held.TABLE_LIST_COUNT.value)),
            *(now.TABLE_LIST_TOLD[name].eq(found[name]) for name in ("absent", "bad")),
        ]
    for kind in _KINDS:
        for mask in _MASKS:
            staged = held[f"TABLE_{kind}_{mask}".upper()]
            m.d.comb += [command.change[kind][mask][part].eq(staged[part]) for part in ("low", "high")]
    aborted, over = Signal(), Signal()
    runs, takes = (Const(0), Const(0)) if rings is None else (rings.runs, rings.takes)
    given = Signal.like(commands.room)  # TABLE commands that have not ended
    m.d.comb += [
        beside.table_commands.valid.eq(commands.table | runs),
        commands.table_over.eq(beside.table_commands.ready),
        commands.table_failed.eq((found.stopped == Stop.BUS_ERROR) | found.failed | found.lost),
        beside.table_completions.ready.eq(Mux(commands.ring, takes, told.DO.pop_table)),
        over.eq((commands.table & commands.table_over) | (commands.ring & commands.ring_over)),
        beside.table_abort.eq(aborted & (commands.table | commands.ring)),
        now.TABLE_TOLD.valid.eq(beside.table_completions.valid & ~commands.ring),
        *(Value.cast(now.TABLE_TOLD[name]).eq(Value.cast(found[name])) for name in _TOLD),
        wide(now, "STOP").eq(found.page),
        wide(now, "CHANGED").eq(found.changed),
        wide(now, "HOMELESS").eq(found.homeless),
        wide(now, "FAILED").eq(found.failed_page),
        wide(now, "GIVEN_UP").eq(found.given_up_page),
    ]
    kind = told.COMMAND.kind
    m.d.sync += given.eq(given + ((kind == Command.TABLE) | (kind == Command.RING)) - over)
    with m.If(over):
        m.d.sync += aborted.eq(0)
    with m.Elif(told.DO.abort_table & (given != 0)):
        m.d.sync += aborted.eq(1)
    if rings is not None:
        _attach_rings(m, file, commands, beside, rings)


def _attach_rings(m: Module, file: RegisterFile, commands: Commands, beside: EngineBeside, rings: TableRings) -> None:
    """Descriptors go to the registers of a command, and its completion to `rings`."""
    now, held = file.now, file.held
    ended, found = beside.table_completions, beside.table_completions.payload
    told = Cat(Const(0, 1), *(now.TABLE_TOLD[name] for name in ("more", "failed", "given_up", "lost")), Const(0, 3))
    lines = Mux(found.failed, found.failed_page, found.given_up_page)
    m.d.comb += [
        *(rings.start.eq(commands.ring), commands.ring_over.eq(rings.over), commands.ring_failed.eq(rings.failed)),
        *(rings.size.eq(held.RING.size), rings.done_size.eq(held.RING.done_size)),
        *(rings.head.eq(held.RING_HEAD.value), rings.done_head.eq(held.DONE_HEAD.value)),
        rings.base.eq(Cat(held.RING_BASE_LO.value, held.RING_BASE_HI.value)),
        rings.done_base.eq(Cat(held.DONE_BASE_LO.value, held.DONE_BASE_HI.value)),
        *(now.RING_TAIL.value.eq(rings.tail), now.RING_TAIL.told.eq(rings.told)),
        *(file.load.eq(rings.load), file.value.eq(rings.value)),
        file.loaded.eq(BY_NAME["TABLE_ROOT_LO"].offset + (rings.number << 2)),
        *(rings.ends.eq(ended.valid), rings.more.eq(found.more), rings.bad.eq(commands.table_failed)),
        rings.completion[0].eq(Cat(held.TABLE_ID.value, Const(0, 16), told, now.TABLE_TOLD.stopped)),
        *(rings.completion[1].eq(found.page), rings.completion[2].eq(found.changed)),
        rings.completion[3].eq(Mux(held.TABLE.moves, found.homeless, lines)),
    ]
