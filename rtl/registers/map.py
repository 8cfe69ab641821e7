"""The map of the unit's registers."""

from enum import IntEnum
from typing import Final

from ptewalk.model import x86
from ptewalk.rtl.bus.self_test import CHECKS, LINE_CHECKS
from ptewalk.rtl.registers.engine_map import TABLE_COMMAND, TABLE_LIST, TABLE_MASKS
from ptewalk.rtl.registers.log_map import LOG
from ptewalk.rtl.registers.rings_map import RINGS
from ptewalk.rtl.registers.table import Access, Field, Register, Reserved, check, said, wide, word

__all__ = [
    "BY_NAME",
    "COMMAND_BITS",
    "COUNTERS",
    "ID",
    "OF_ENGINE",
    "OF_LISTS",
    "OF_LOG",
    "OF_RINGS",
    "REGISTERS",
    "RESERVED",
    "SOURCES",
    "VERSION",
    "Command",
    "Wait",
]

ID: Final = int.from_bytes(b"PTEW", "little")
VERSION: Final = (1, 10)
"""Major and minor number of this map: the major one changes when a driver has to."""
RO, RW, W1C, W1S, WO = Access.RO, Access.RW, Access.W1C, Access.W1S, Access.WO


COMMAND_BITS: Final = 4
"""Of a kind of command."""


class Command(IntEnum):
    """What COMMAND takes: one after the other, in the order in which they were written."""

    APPLY = 1
    """The staged context comes into force."""
    INVALIDATE = 2
    """INV is done, and waited for."""
    REQUEST = 3
    """REQUEST is translated."""
    READ = 4
    """The word at MEMORY_ADDRESS is read into MEMORY_VALUE."""
    SWAP = 5
    """The word at MEMORY_ADDRESS becomes MEMORY_NEW if it is MEMORY_OLD."""
    DRAIN = 6
    """Waits until nothing is in flight and no grant is outstanding."""
    SELFTEST = 7
    """Memory is tried, and SELFTEST says what was found; the bytes that hold MEMORY_ADDRESS are lost."""
    TABLE = 8
    """The table engine does what the TABLE registers say; it ends as its last completion is taken."""
    RING = 9
    """It does what descriptors say, from RING_TAIL to RING_HEAD, one after the other."""


class Wait(IntEnum):
    """What an invalidation waits for."""

    NONE = 0
    STORES = 1
    """No store that was allowed before can land later."""
    ALL = 2
    """Nothing that was asked before is in flight."""


SOURCES: Final = {
    "fault": (0, "FAULT or BRIDGE_FAULT has a record: stays until it has none."),
    "fault_overflow": (1, "A record of a fault was lost."),
    "command_done": (2, "A command has ended."),
    "table_told": (3, "TABLE_TOLD has a completion: stays until it has none."),
    "watermark": (4, "As many records of the log wait as LOG_WATERMARK says: stays as long as they do."),
    "log_stalled": (5, "A mark waits for room in the log: stays as long as one does."),
    "log_overflow": (6, "A page was marked and has no record."),
    "log_incomplete": (7, "Whether a page was marked, or its record written, is not known."),
    "bus_error": (8, "A command ended in a bus error, or the outcome of a swap is unknown."),
    "no_monitor": (9, "A swap was given up: the bus refused each exclusive read."),
    "stall_timeout": (11, "A stalled burst of the bridge was aborted, since TIMEOUT had passed."),
    "log_refused": (12, "The log was set up with a size or mode that is none, and is off."),
    "ring_told": (13, "There is a completion in the ring that software is not done with: stays as long as there is."),
}
"""Interrupt to its bit and meaning; 10 is free for shootdowns of other MMUs."""

COUNTERS: Final = {
    "cycles": "Cycles of the clock.",
    "requests": "Requests that the MMU accepted.",
    "hits": "Requests that the TLB answered.",
    "marks": "Entries whose soft-dirty bit the MMU set.",
    "mends": "Entries that the MMU made writable again.",
    "delivered_faults": "Page faults answered, but for those of probes.",
    "lost_faults": "Those of them whose record is lost.",
    "overtaken": "Walks that were not kept since an invalidation overtook them.",
    "replays": "Requests that were looked up again.",
    "wraps": "Rounds of the PCID slots.",
}
"""Counter to its meaning, from offset 400 on."""


def _irq(access: Access) -> tuple[Field, ...]:
    return tuple(Field(name, bit, 1, access, text) for name, (bit, text) in SOURCES.items())


_CONTROL_TEXTS: Final = {
    "WP": "CR0.WP.",
    "NXE": "EFER.NXE.",
    "SMEP": "CR4.SMEP.",
    "SMAP": "CR4.SMAP.",
    "PKE": "CR4.PKE.",
    "PKS": "CR4.PKS.",
    "PGE": "CR4.PGE.",
    "LA57": "CR4.LA57.",
}
_BUILT: Final = (
    Register(
        "ID",
        0x000,
        (Field("value", 0, 32, RO, 'The letters "PTEW", the first in the lowest byte.', ID),),
        "Whose registers these are.",
    ),
    Register(
        "VERSION",
        0x004,
        (
            Field("minor", 0, 16, RO, "Grows with what is added.", VERSION[1]),
            Field("major", 16, 16, RO, "Changes when a driver has to.", VERSION[0]),
        ),
        "Version of this map.",
    ),
    Register(
        "CAPS",
        0x008,
        (
            said("soft_dirty", 0, 1, "The MMU tracks: TRACK counts."),
            said(
                "exclusive",
                1,
                1,
                "Tables are reached over AXI4 with exclusive accesses; 0 here and at atomic: block RAM.",
            ),
            said("monitor", 2, 1, "The unit has an exclusive monitor of its own."),
            said("selftest", 3, 1, "SELFTEST is there."),
            said("bridge", 4, 1, "The translating bridge is there."),
            said("engine", 5, 1, "The table engine is there."),
            said("log", 6, 1, "The dirty log is there."),
            said("atomic", 7, 1, "Tables are reached over AXI5, and swaps are atomic transactions."),
            said("lists", 8, 1, "The table engine goes through lists."),
            said("rings", 9, 1, "There are rings of descriptors and completions."),
            said("soft_reset", 10, 1, "DO.soft_reset is there."),
            said("bitmaps", 11, 1, "The table engine sets bits in a bitmap, and tells of several pages by one."),
            said("written", 12, 1, "The table engine leaves what is write-protected as it is, by TABLE.written."),
        ),
        "What is there.",
    ),
    Register(
        "PARAM0",
        0x00C,
        (
            said("physical_bits", 0, 8, "MAXPHYADDR."),
            said("levels", 8, 4, "Levels of paging at most."),
            said("tag_bits", 12, 4, "Width of a request's tag."),
            said("gigabyte_pages", 16, 1, "1 GiB pages are allowed."),
            said("walkers", 20, 4, "Walks in flight at most."),
        ),
        "The MMU that was built.",
    ),
    Register(
        "PARAM1",
        0x010,
        (
            said("data_bits", 0, 10, "Width of the path to memory."),
            said("line_bytes", 16, 8, "Largest exclusive access, in bytes."),
            said("exclusive_ids", 24, 7, "Reservations used at a time; 0: none are needed."),
        ),
        "The path to memory that was built.",
    ),
    Register(
        "PARAM2",
        0x014,
        (
            said("small_entries", 0, 16, "4 KiB pages that the TLB holds."),
            said("large_entries", 16, 16, "Large pages that it holds."),
        ),
        "The TLB that was built.",
    ),
    Register(
        "PARAM3",
        0x018,
        (
            said("fault_depth", 0, 11, "Places of the fault queue."),
            said("queue_depth", 16, 5, "Places of the command queue."),
            said("slots", 24, 5, "PCIDs whose translations stand at a time."),
        ),
        "The queues that were built.",
    ),
    Register(
        "SELFTEST",
        0x01C,
        (
            Field("ran", 0, 1, RO, "One has ended since the reset; the rest counts only then."),
            *(Field(name, 1 + number, 1, RO, text) for number, (name, text) in enumerate(CHECKS.items())),
            Field("error", 1 + len(CHECKS), 1, RO, "The bus refused an access; the other bits are 0."),
            *(Field(name, 8 + number, 1, RO, text) for number, (name, text) in enumerate(LINE_CHECKS.items())),
            Field("ids", 16, 7, RO, "So many of the unit's IDs hold a reservation at a time."),
        ),
        "What the last SELFTEST found; a bit is 1 where memory serves.",
    ),
)
_CONDITION: Final = (
    Register(
        "CTRL",
        0x020,
        (
            Field("enable", 0, 1, RW, "Bursts are translated; 0: they wait."),
            Field("fault_mode", 1, 1, RW, "0: a burst that faults is answered SLVERR; 1: it waits for RESUME."),
            Field("final_response", 2, 1, RW, "AWCACHE[0] is cleared, so that B means visible.", 1),
            Field("map_cache", 3, 1, RW, "AxCACHE is what PAT_MAP says; 0: it passes."),
            Field("ac", 4, 1, RW, "RFLAGS.AC of every burst."),
            Field("fixed_prot", 8, 1, RW, "The next two say whose each burst is; 0: AxPROT says."),
            Field("user", 9, 1, RW, "It is the user's."),
            Field("fetch", 10, 1, RW, "Reads are fetches."),
        ),
        "Modes of the bridge; count with CAPS.bridge.",
    ),
    Register(
        "STATUS",
        0x024,
        (
            Field("busy", 0, 1, RO, "A command is waiting or in work."),
            Field("room", 1, 5, RO, "Places free in the command queue.", None),
            Field("granted", 8, 1, RO, "A store of the request window was allowed and is not retired."),
            Field("memory_done", 9, 1, RO, "The last READ was answered, or the last SWAP replaced the word."),
            Field("memory_error", 10, 1, RO, "The bus refused the last READ or SWAP."),
            Field("bridge_busy", 11, 1, RO, "The bridge has taken a burst and not answered it."),
            Field("stalled_read", 12, 1, RO, "A read of the bridge waits for RESUME."),
            Field("stalled_write", 13, 1, RO, "A write of the bridge waits for RESUME."),
            Field("resetting", 14, 1, RO, "DO.soft_reset is at work: no command is taken."),
            Field("fault_overflow", 16, 1, W1C, "A page fault was answered, and its record lost."),
            Field("tag_reused", 17, 1, W1C, "A store was allowed whose tag has a grant outstanding."),
            Field("stray_retirement", 18, 1, W1C, "A tag was retired that has no grant outstanding."),
            Field("no_monitor", 19, 1, W1C, "A swap was given up: each exclusive read was refused."),
            Field("retry_limit", 20, 1, W1C, "A swap was given up: each exclusive write failed."),
            Field("outcome_unknown", 21, 1, W1C, "The bus refused a swap's write: see UNKNOWN_ADDRESS, or TABLE_TOLD."),
            Field("bridge_overflow", 22, 1, W1C, "A record of the bridge was lost."),
            Field("stall_timeout", 23, 1, W1C, "A stalled burst was aborted, since TIMEOUT had passed."),
        ),
        "What goes on, and what went wrong since it was cleared.",
    ),
    Register(
        "DO",
        0x028,
        (
            Field("snapshot", 0, 1, WO, "Copies every counter, in one cycle; reads see the copy."),
            Field("clear_counters", 1, 1, WO, "Clears every counter, after the copy where both are written."),
            Field("pop_fault", 2, 1, WO, "Takes the fault that is shown off the queue."),
            Field("retire", 3, 1, WO, "The store that the request window was granted is visible."),
            Field("pop_bridge_fault", 4, 1, WO, "Takes the record that BRIDGE_FAULT shows off its queue."),
            Field("pop_table", 5, 1, WO, "Takes the completion that TABLE_TOLD shows."),
            Field("abort_table", 6, 1, WO, "A TABLE or RING that waits or is in work begins nothing more, is told."),
            Field("log_setup", 7, 1, WO, "The log begins anew as LOG and those round it say, with head and tail 0."),
            Field("log_append", 8, 1, WO, "A record of LOG_LINEAR is appended to the log, with the PCID in force."),
            Field("soft_reset", 9, 1, WO, "What is outstanding is answered, and then all is as after a reset."),
        ),
        "What is done at once.",
    ),
    Register(
        "COMMAND",
        0x02C,
        (
            Field(
                *("kind", 0, COMMAND_BITS, WO),
                "1 APPLY, 2 INVALIDATE, 3 REQUEST, 4 READ, 5 SWAP, as staged; 6 DRAIN; 7 SELFTEST; 8 TABLE; 9 RING.",
            ),
        ),
        "Puts a command into the queue; SLVERR, and nothing is done: no room, no such command, or STATUS.resetting.",
        refusable=True,
    ),
    Register("DONE", 0x030, word(RO, "Wraps."), "Commands that have ended since the reset."),
    Register(
        "LIMITS",
        0x034,
        (
            Field("exclusive_ids", 0, 7, RW, "So many reservations at a time at most; 0: as PARAM1 says."),
            Field("words", 8, 1, RW, "Exclusive accesses are of 8 bytes; 0: as PARAM1 says."),
        ),
        "What the unit asks of its memory; set while nothing is at work; a reset by software leaves it.",
        kept=True,
    ),
    Register(
        "QOS",
        0x038,
        (
            Field("port", 0, 4, RW, "Of walks, and of software's words."),
            Field("engine", 8, 4, RW, "Of the table engine's lines, reports and rings."),
            Field("log", 16, 4, RW, "Of the log's records."),
        ),
        "AxQOS of the unit's own accesses to tables that are offered from now on; a reset by software leaves it.",
        kept=True,
    ),
    Register("IRQ_RAW", 0x040, _irq(W1C), "What has happened; a source that lasts stays until its cause goes."),
    Register("IRQ_MASK", 0x044, _irq(RW), "What raises the interrupt."),
    Register("IRQ_NOW", 0x048, _irq(RO), "IRQ_RAW and IRQ_MASK: while any bit is 1 the interrupt is high."),
    Register("IRQ_SET", 0x04C, _irq(W1S), "Sets bits of IRQ_RAW, for tests."),
)
_CONTEXT: Final = (
    Register(
        "CONTROL",
        0x080,
        tuple(Field(bit.name.lower(), int(bit), 1, RW, _CONTROL_TEXTS[bit.name]) for bit in list(x86.Control)[:-1]),
        "Staged: control bits.",
    ),
    Register("CR3_LO", 0x084, word(RW, "Bits 31:12 of the root table's address.", 12, 20), "Staged: CR3."),
    Register("CR3_HI", 0x088, word(RW, "Bits 51:32 of it.", 0, 20), "Staged: CR3."),
    Register(
        "PCID",
        0x08C,
        (
            Field("pcid", 0, 12, RW, "CR3's PCID."),
            Field("keep", 31, 1, RW, "What is cached of the PCID stands (bit 63 of a write to CR3)."),
        ),
        "Staged: PCID.",
    ),
    Register("PKRU", 0x090, word(RW, "The register."), "Staged: protection keys of user pages."),
    Register("PKRS", 0x094, word(RW, "The register."), "Staged: protection keys of supervisor pages."),
    Register(
        "TRACK",
        0x098,
        (
            Field("track", 0, 2, RW, "0 off, 1 fault, 2 native."),
            Field("saved_dirty", 8, 1, RW, "A mend clears SAVED_DIRTY."),
        ),
        "Staged: who tracks.",
    ),
    Register(
        "PAT_MAP",
        0x09C,
        word(RW, "Field (PAT, PCD, PWT) of the leaf, four bits each, is AxCACHE."),
        "Memory types of the bridge, not staged; counts with CTRL.map_cache.",
    ),
)
_WINDOWS: Final = (
    *wide("INV_LINEAR", 0x0C0, RW, "Staged: linear address of an invalidation."),
    Register(
        "INV",
        0x0C8,
        (
            Field("pcid", 0, 12, RW, "Counts for kinds 0 and 1."),
            Field("kind", 16, 3, RW, "0 to 3: INVPCID's types; 4: INVLPG."),
            Field("wait", 24, 2, RW, "0 for nothing, 1 for stores, 2 for all that was asked before."),
        ),
        "Staged: an invalidation.",
    ),
    *wide("REQUEST_LINEAR", 0x0D0, RW, "Staged: linear address to translate."),
    Register(
        "REQUEST",
        0x0D8,
        (
            Field("access", 0, 3, RW, "0 read, 1 write, 2 rmw, 3 fetch, 4 probe."),
            Field("user", 3, 1, RW, "At CPL 3."),
            Field("implicit", 4, 1, RW, "An implicit supervisor access."),
            Field("ac", 5, 1, RW, "RFLAGS.AC."),
            Field("retire", 8, 1, RW, "A store that is allowed counts as visible at once; 0: DO.retire says when."),
        ),
        "Staged: an access to translate; it waits while a grant of the window is outstanding.",
    ),
    Register(
        "ANSWER",
        0x0DC,
        (
            Field("outcome", 0, 2, RO, "0 OK, 1 page fault, 2 general protection, 3 bus error."),
            Field("leaf_level", 2, 3, RO, "Of the leaf, 1 to 3; on a page fault of the entry that ended the walk."),
            Field("pwt", 5, 1, RO, "The leaf's; counts when OK."),
            Field("pcd", 6, 1, RO, "The leaf's; counts when OK."),
            Field("pat", 7, 1, RO, "The leaf's; counts when OK."),
            Field("code", 16, 16, RO, "Page-fault error code."),
        ),
        "The answer to the last REQUEST.",
    ),
    *wide("ANSWER_PHYSICAL", 0x0E0, RO, "Physical address of the access; counts when OK."),
    Register(
        "BRIDGE_FAULT",
        0x0E8,
        (
            Field("valid", 0, 1, RO, "There is one; the rest counts only then."),
            Field("write", 1, 1, RO, "It is a write."),
            Field("stalled", 2, 1, RO, "It waits for RESUME."),
            Field("kind", 4, 2, RO, "0 AXI forbids it, 1 page fault, 2 general protection, 3 bus error of the tables."),
            Field("code", 16, 16, RO, "Error code of a page fault."),
        ),
        "The oldest burst that was not sent.",
    ),
    Register(
        "BRIDGE_BURST",
        0x0EC,
        (Field("id", 0, 8, RO, "AxID."), Field("len", 16, 8, RO, "AxLEN.")),
        "Its burst.",
    ),
    *wide("BRIDGE_LINEAR", 0x0F0, RO, "Its AxADDR."),
    Register(
        "FAULT",
        0x100,
        (
            Field("valid", 0, 1, RO, "There is one; the rest counts only then."),
            Field("tag", 4, 10, RO, "The request's.", None),
            Field("code", 16, 16, RO, "Page-fault error code.", None),
        ),
        "The oldest fault of the request window that is queued.",
    ),
    *wide("FAULT_LINEAR", 0x108, RO, "Its linear address."),
    Register(
        "RESUME",
        0x110,
        (
            Field("retry_read", 0, 1, WO, "The stalled read is asked for again."),
            Field("abort_read", 1, 1, WO, "It is answered SLVERR."),
            Field("retry_write", 2, 1, WO, "The stalled write is asked for again."),
            Field("abort_write", 3, 1, WO, "It is answered SLVERR."),
        ),
        "What becomes of what the bridge has stalled.",
    ),
    Register("TIMEOUT", 0x114, word(RW, "Cycles; 0: for ever."), "How long the bridge stalls a burst."),
    *wide("UNKNOWN_ADDRESS", 0x118, RO, "Where the first swap of a single word was whose outcome is unknown."),
    *wide(
        "MEMORY_ADDRESS", 0x120, RW, "Staged: physical address of a word; bits 2:0, for SELFTEST more, do not count."
    ),
    *wide("MEMORY_OLD", 0x128, RW, "Staged: what a SWAP replaces."),
    *wide("MEMORY_NEW", 0x130, RW, "Staged: what it writes."),
    *wide("MEMORY_VALUE", 0x138, RO, "What the last READ found."),
)
_COUNTED: Final = tuple(
    half
    for number, (name, text) in enumerate(COUNTERS.items())
    for half in wide(f"COUNT_{name.upper()}", 0x400 + 8 * number, RO, f"Copy of a counter: {text}")
)
OF_ENGINE: Final = frozenset(register.name for register in (*TABLE_COMMAND, *TABLE_MASKS))
"""The registers of the table engine, which are there with it only, and read as 0 without."""
OF_LISTS: Final = frozenset(register.name for register in TABLE_LIST)
"""Those of its lists, likewise."""
OF_RINGS: Final = frozenset(register.name for register in RINGS)
"""Those of rings, likewise."""
OF_LOG: Final = frozenset(register.name for register in LOG)
"""Those of the dirty log, likewise."""
REGISTERS: Final = (
    *_BUILT,
    *_CONDITION,
    *_CONTEXT,
    *_WINDOWS,
    *TABLE_COMMAND,
    *RINGS,
    *LOG,
    *TABLE_MASKS,
    *TABLE_LIST,
    *_COUNTED,
)
"""Every register, by offset."""
BY_NAME: Final = {register.name: register for register in REGISTERS}

RESERVED: Final = (
    Reserved(0x0CC, 0x0D0, "Shootdowns of other MMUs."),
    Reserved(0x1F8, 0x200, "The dirty log: more."),
    Reserved(0x25C, 0x400, "The table engine: more masks."),
)
"""What is kept free, for what."""
check(REGISTERS, RESERVED)
