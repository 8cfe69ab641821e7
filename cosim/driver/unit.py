"""The unit's driver: each function yields steps (`steps.py`), so nothing here does any I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ptewalk.cosim.driver.steps import DriverError, Read, Steps, Wait, Write
from ptewalk.model.linux import Track
from ptewalk.model.x86 import Access, Invalidation, Outcome
from ptewalk.rtl.bus.self_test import CHECKS, LINE_CHECKS, scratch_bytes
from ptewalk.rtl.registers.map import BY_NAME, COUNTERS, ID, SOURCES, VERSION, Command
from ptewalk.rtl.registers.map import Wait as WaitFor

__all__ = ["POLLS", "Answer", "BridgeFault", "Fault", "Unit", "WaitFor"]

POLLS: Final = 10_000
"""How often a command is asked for whether it has ended."""
_NEEDED: Final = ("pair", "spent", "write", "one_byte", "other")
"""What no mark is safe without; one reservation is enough, so that `two` is not needed."""
_LIMITS_SINCE: Final = 10
"""Minor version of the map."""
_WORD_BYTES: Final = 8
_BUILT: Final = ("CAPS", "PARAM0", "PARAM1", "PARAM2", "PARAM3")


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes
    ----------
    outcome : Outcome
    code : int
        Page-fault error code; 0 unless the outcome is a page fault.
    physical : int
        Physical address of the access; counts when OK.
    level : int
        Of the leaf; on a page fault of the entry that ended the walk.
    pwt, pcd, pat : bool
        Memory-type bits of the leaf; count when OK.
    """

    outcome: Outcome
    code: int
    physical: int
    level: int
    pwt: bool
    pcd: bool
    pat: bool


@dataclass(frozen=True)
class Fault:
    """A page fault that went to software: its linear address, error code, and the request's tag."""

    linear: int
    code: int
    tag: int


@dataclass(frozen=True)
class BridgeFault:
    """A burst that the bridge did not send: docs/bridge.md.

    Attributes
    ----------
    linear : int
        AxADDR.
    kind : int
        Why: 0 AXI forbids it, 1 page fault, 2 general protection, 3 bus error of the tables.
    code : int
        Error code of a page fault.
    id, length : int
        AxID; beats.
    write, stalled : bool
        It is a write; it waits for `resume`.
    """

    linear: int
    kind: int
    code: int
    id: int
    length: int
    write: bool
    stalled: bool


def _read(name: str) -> Steps[dict[str, int]]:
    """The fields of a register."""
    register = BY_NAME[name]
    word = yield Read(register.offset)
    return register.unpack(word)


def _write(name: str, **values: int) -> Steps[None]:
    """Write a register: these fields, and 0 to all others."""
    register = BY_NAME[name]
    yield Write(register.offset, register.pack(**values))


def _read_wide(name: str) -> Steps[int]:
    low = yield Read(BY_NAME[f"{name}_LO"].offset)
    high = yield Read(BY_NAME[f"{name}_HI"].offset)
    return high << 32 | low


def _write_wide(name: str, value: int) -> Steps[None]:
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{name} has 64 bits: {value:#x} does not fit")
    yield Write(BY_NAME[f"{name}_LO"].offset, value & 0xFFFF_FFFF)
    yield Write(BY_NAME[f"{name}_HI"].offset, value >> 32)


class Unit:
    """A unit whose registers have been looked at; made by `Unit.open`.

    Attributes
    ----------
    built : mapping of str to int
        What CAPS and PARAM0 to PARAM3 say, by the names of their fields.
    staged : dict of int to int
        What the table engine's registers hold, by offset, as far as this driver wrote them.
    """

    def __init__(self, built: Mapping[str, int]) -> None:
        self.built = MappingProxyType(dict(built))
        self.staged: dict[int, int] = {}

    @staticmethod
    def open(*, scratch: int | None = None) -> Steps[Unit]:
        """Look at the registers, and try the memory.

        Parameters
        ----------
        scratch : int, optional
            Physical address of `scratch_bytes` that nobody uses, for `self_test`. None: it is not run, and what was
            limited stays so. Block RAM and a unit that makes atomic transactions have none. Where not all that the unit
            would reserve at a time holds, or no lines, it is limited to what does: see `in_use`.

        Raises
        ------
        DriverError
            They are not those of this driver; or the memory does not serve even so, or cannot be tried by a unit of
            before SELFTEST: then no mark would be safe.
        """
        found = (yield from _read("ID"))["value"]
        if found != ID:
            raise DriverError(f"no ptewalk unit here: ID is {found:#010x}, not {ID:#010x}")
        version = yield from _read("VERSION")
        if version["major"] != VERSION[0]:
            raise DriverError(f"registers of version {version['major']}; this driver is for version {VERSION[0]}")
        built: dict[str, int] = {}
        for name in _BUILT:
            built |= yield from _read(name)
        if built["engine"]:
            built |= yield from _read("TABLE_BUILT")
        unit = Unit(built)
        if scratch is not None and built["exclusive"] and not built["selftest"]:
            text = f"version {version['major']}.{version['minor']} with CAPS.selftest 0"
            raise DriverError(f"this unit cannot try its memory: {text}; leave scratch out to use it untried")
        if scratch is not None and built["selftest"]:
            tested = yield from unit.self_test(scratch)
            bad = [name for name in _NEEDED if not tested[name]]
            if tested["error"]:
                raise DriverError(f"self-test: the bus refuses an access at {scratch:#x}; name memory that is there")
            if bad:
                why = " ".join(CHECKS[name] for name in bad)
                raise DriverError(f"self-test: the exclusive monitor does not serve; what does not hold: {why}")
            if version["minor"] >= _LIMITS_SINCE:
                yield from unit._limit(tested)
        return unit

    def _limit(self, tested: Mapping[str, int]) -> Steps[None]:
        """Have the unit use no more of the memory than holds; one reservation of a word does."""
        built = self.built
        ids, lines = max(1, min(tested["ids"], built["exclusive_ids"])), all(tested[name] for name in LINE_CHECKS)
        if built["engine"]:
            # Its lines are reserved all, or none.
            whole = lines and ids == built["exclusive_ids"]
            found = (built["exclusive_ids"], built["line_bytes"]) if whole else (1, _WORD_BYTES)
        else:
            found = 1 << ids.bit_length() - 1, _WORD_BYTES
        few, words = found[0] < built["exclusive_ids"], found[1] < built["line_bytes"]
        yield from _write("LIMITS", exclusive_ids=found[0] if few else 0, words=words)

    def in_use(self) -> Steps[tuple[int, int]]:
        """(`exclusive_ids`, `line_bytes`) that the unit uses: as built, or as limited at a start with `scratch`."""
        limits = yield from _read("LIMITS")
        ids = limits["exclusive_ids"] or self.built["exclusive_ids"]
        return ids, _WORD_BYTES if limits["words"] else self.built["line_bytes"]

    @property
    def scratch_bytes(self) -> int:
        """Bytes that `self_test` needs, and loses; a power of two, to which they are aligned."""
        return scratch_bytes(self.built["exclusive_ids"], self.built["line_bytes"])

    # Commands ----------------------------------------------------------------------------------------------------

    def begin(self, kind: Command) -> Steps[None]:
        """Put a command into the queue."""
        for _ in range(POLLS):
            if (yield from _read("STATUS"))["room"]:
                break
            yield Wait()
        else:
            raise DriverError(f"{kind.name}: no room in the command queue after {POLLS} polls")
        yield from _write("COMMAND", kind=kind)

    def await_end(self, kind: Command) -> Steps[dict[str, int]]:
        """Wait until all commands have ended, `kind` the last of them; the fields of STATUS then."""
        for _ in range(POLLS):
            status = yield from _read("STATUS")
            if not status["busy"]:
                return status
            yield Wait()
        raise DriverError(f"{kind.name} did not end within {POLLS} polls; is a grant not retired?")

    def _command(self, kind: Command) -> Steps[dict[str, int]]:
        """Put a command into the queue, and wait until it has ended; the fields of STATUS then."""
        yield from self.begin(kind)
        return (yield from self.await_end(kind))

    def self_test(self, scratch: int) -> Steps[dict[str, int]]:
        """Try whether the memory has an exclusive monitor that serves, on `scratch_bytes` that are lost.

        Parameters
        ----------
        scratch : int
            Their physical address, a multiple of so many.

        Returns
        -------
        dict of str to int
            Each of `CHECKS` and `LINE_CHECKS` to 1 where it holds, `ids` that hold a reservation at a time, and
            `error`, 1 where the bus refused an access.

        Raises
        ------
        ValueError
            The address does not fit, or the unit has block RAM behind it, which needs no monitor.
        """
        if not self.built["selftest"]:
            raise ValueError("this unit has no self-test: CAPS.selftest is 0")
        size, bits = self.scratch_bytes, self.built["physical_bits"]
        if scratch % size or scratch >> bits:
            raise ValueError(f"scratch must be a multiple of {size} below 2**{bits}, not {scratch:#x}")
        yield from _write_wide("MEMORY_ADDRESS", scratch)
        yield from self._command(Command.SELFTEST)
        found = yield from _read("SELFTEST")
        if not found.pop("ran"):
            raise DriverError("SELFTEST ended, and SELFTEST.ran is 0")
        return found

    def quality(self, *, port: int = 0, engine: int = 0, log: int = 0) -> Steps[None]:
        """AxQOS, 0 to 15, of walks and software's words, of the engine and its rings, and of the log's records.

        Each access that is offered from now on has it, also after a reset by software.
        """
        yield from _write("QOS", port=port, engine=engine, log=log)

    def soft_reset(self) -> Steps[None]:
        """Have the unit begin anew, whatever it does: what is outstanding on its buses is answered first.

        Nothing of before stands but `quality` and what `open` limited: neither what was staged and set, nor what is
        cached, granted, queued or counted; a command in work is not told to its end. A driver of the engine, of rings
        or of the log that stands on this unit is of no more use. Where the unit tracks, all pages count as written.

        Raises
        ------
        ValueError
            The unit has no such reset.
        DriverError
            It does not end, since an answer does not come: then unit and memory side need a reset together; or since a
            store waits for room in a log that stalls.
        """
        if not self.built["soft_reset"]:
            raise ValueError("this unit has no reset by software: CAPS.soft_reset is 0")
        yield from _write("DO", soft_reset=1)
        for _ in range(POLLS):
            if not (yield from _read("STATUS"))["resetting"]:
                self.staged.clear()
                return
            yield Wait()
        text = "an answer is outstanding; empty a log that stalls, or reset the unit and the memory side together"
        raise DriverError(f"a reset by software did not end within {POLLS} polls: {text}")

    def context(
        self,
        root: int,
        *,
        control: int = 0,
        pcid: int = 0,
        keep: bool = False,
        pkru: int = 0,
        pkrs: int = 0,
        track: Track = Track.OFF,
        saved_dirty: bool = False,
    ) -> Steps[None]:
        """Switch to a context: in force for all that comes later.

        Parameters
        ----------
        root : int
            Physical address of the top-level table.
        control : int
            Bits of `x86.Control`, but for AC.
        pcid, keep
            CR3's PCID; what is cached of it stands.
        pkru, pkrs : int
        track, saved_dirty
            Who tracks; a mend clears SAVED_DIRTY.

        Raises
        ------
        ValueError
            A value does not fit, or the unit does not track.
        """
        if track and not self.built["soft_dirty"]:
            raise ValueError(f"this unit was built without tracking: track must be OFF, not {track.name}")
        if root % 4096:
            raise ValueError(f"root must be a multiple of 4096, not {root:#x}")
        if root >> self.built["physical_bits"]:
            raise ValueError(f"root must be below 2**{self.built['physical_bits']}, not {root:#x}")
        yield Write(BY_NAME["CONTROL"].offset, control)
        yield Write(BY_NAME["CR3_LO"].offset, root & 0xFFFF_FFFF)
        yield Write(BY_NAME["CR3_HI"].offset, root >> 32)
        yield from _write("PCID", pcid=pcid, keep=keep)
        yield from _write("PKRU", value=pkru)
        yield from _write("PKRS", value=pkrs)
        yield from _write("TRACK", track=track, saved_dirty=saved_dirty)
        yield from self._command(Command.APPLY)

    def invalidate(
        self, kind: Invalidation, *, linear: int = 0, pcid: int = 0, wait: WaitFor = WaitFor.ALL
    ) -> Steps[None]:
        """Have cached translations forgotten, and wait for what was allowed by them."""
        yield from _write_wide("INV_LINEAR", linear)
        yield from _write("INV", pcid=pcid, kind=kind, wait=wait)
        yield from self._command(Command.INVALIDATE)

    def drain(self) -> Steps[None]:
        """Wait until nothing is in flight and every store that was allowed has landed."""
        yield from self._command(Command.DRAIN)

    def translate(
        self,
        linear: int,
        access: Access = Access.READ,
        *,
        user: bool = True,
        implicit: bool = False,
        ac: bool = False,
        retire: bool = True,
    ) -> Steps[Answer]:
        """Translate an access, with all that it does to the tables.

        Parameters
        ----------
        linear : int
            Linear address, in bytes.
        access : Access
        user, implicit, ac
            As in a request.
        retire : bool
            A store that is allowed counts as done. False: whoever asked says so with `retire`, and until then no other
            request is taken and no drain ends.
        """
        yield from _write_wide("REQUEST_LINEAR", linear)
        yield from _write("REQUEST", access=access, user=user, implicit=implicit, ac=ac, retire=retire)
        yield from self._command(Command.REQUEST)
        found = yield from _read("ANSWER")
        physical = yield from _read_wide("ANSWER_PHYSICAL")
        types = {name: bool(found[name]) for name in ("pwt", "pcd", "pat")}
        return Answer(Outcome(found["outcome"]), found["code"], physical, found["leaf_level"], **types)

    def retire(self) -> Steps[None]:
        """The store that was allowed is visible."""
        yield from _write("DO", retire=1)

    def load(self, linear: int, *, user: bool = True) -> Steps[tuple[Answer, int]]:
        """The word of 64 bits at a linear address, aligned; the value counts when the answer is OK."""
        answer = yield from self.translate(linear, user=user)
        value = 0
        if answer.outcome == Outcome.OK:
            value = yield from self.read_word(answer.physical)
        return answer, value

    def store(self, linear: int, value: int, *, user: bool = True) -> Steps[Answer]:
        """Store a word of 64 bits at a linear address, aligned: done when the answer is OK."""
        answer = yield from self.translate(linear, Access.WRITE, user=user, retire=False)
        if answer.outcome == Outcome.OK:
            yield from self.write_word(answer.physical, value)
            yield from self.retire()
        return answer

    # The bridge --------------------------------------------------------------------------------------------------

    def bridge(
        self,
        *,
        enable: bool = True,
        stall: bool = False,
        timeout: int = 0,
        final_response: bool = True,
        ac: bool = False,
        whose: str | None = None,
        fetch: bool = False,
        pat_map: int | None = None,
    ) -> Steps[None]:
        """Set the bridge's modes.

        Parameters
        ----------
        enable : bool
            False: bursts wait.
        stall : bool
            What page-faults waits for `resume`, for `timeout` cycles where that is not 0; False: it is answered SLVERR.
        final_response : bool
            AWCACHE[0] is cleared.
        ac : bool
            RFLAGS.AC of every burst.
        whose : str, optional
            "user" or "supervisor": every burst is; by default AxPROT says.
        fetch : bool
            With `whose`: reads are fetches.
        pat_map : int, optional
            AxCACHE by memory type; by default it passes.

        Raises
        ------
        ValueError
            The unit has no bridge, `whose` is none of these, or `fetch` is without it.
        """
        self._needs_bridge()
        if whose not in (None, "user", "supervisor"):
            raise ValueError(f"whose must be user or supervisor, not {whose!r}")
        if fetch and whose is None:
            raise ValueError("fetch counts only where whose says whose bursts are: by default AxPROT does")
        yield from _write("TIMEOUT", value=timeout)
        yield from _write("PAT_MAP", value=pat_map or 0)
        yield from _write(
            "CTRL",
            enable=enable,
            fault_mode=stall,
            final_response=final_response,
            map_cache=pat_map is not None,
            ac=ac,
            fixed_prot=whose is not None,
            user=whose == "user",
            fetch=fetch,
        )

    def pop_bridge_fault(self) -> Steps[BridgeFault | None]:
        """The oldest burst that was not sent; None when there is none."""
        self._needs_bridge()
        found = yield from _read("BRIDGE_FAULT")
        if not found["valid"]:
            return None
        burst = yield from _read("BRIDGE_BURST")
        linear = yield from _read_wide("BRIDGE_LINEAR")
        yield from _write("DO", pop_bridge_fault=1)
        flags = {name: bool(found[name]) for name in ("write", "stalled")}
        return BridgeFault(linear, found["kind"], found["code"], burst["id"], burst["len"] + 1, **flags)

    def resume(self, *, write: bool, retry: bool) -> Steps[None]:
        """What becomes of the stalled write, or read: it is asked for again, or answered SLVERR."""
        self._needs_bridge()
        yield from _write("RESUME", **{f"{'retry' if retry else 'abort'}_{'write' if write else 'read'}": 1})

    def _needs_bridge(self) -> None:
        if not self.built["bridge"]:
            raise ValueError("this unit was built without a bridge")

    # Memory ------------------------------------------------------------------------------------------------------

    def read_word(self, physical: int) -> Steps[int]:
        """The word of 64 bits at a physical address; DriverError where the bus refuses."""
        yield from self._word(physical, Command.READ)
        return (yield from _read_wide("MEMORY_VALUE"))

    def swap_word(self, physical: int, old: int, new: int) -> Steps[bool]:
        """Replace a word if it is `old`, atomically; False: it was not. DriverError where the bus refuses."""
        yield from _write_wide("MEMORY_OLD", old)
        yield from _write_wide("MEMORY_NEW", new)
        return (yield from self._word(physical, Command.SWAP))

    def write_word(self, physical: int, value: int) -> Steps[int]:
        """Replace a word, whatever it is; what it was."""
        while True:
            old = yield from self.read_word(physical)
            if (yield from self.swap_word(physical, old, value)):
                return old

    def _word(self, physical: int, kind: Command) -> Steps[bool]:
        if physical % 8:
            raise ValueError(f"a word's address must be a multiple of 8, not {physical:#x}")
        if physical >> self.built["physical_bits"]:
            raise ValueError(f"an address must be below 2**{self.built['physical_bits']}, not {physical:#x}")
        yield from _write_wide("MEMORY_ADDRESS", physical)
        status = yield from self._command(kind)
        if status["memory_error"]:
            raise DriverError(f"{kind.name} of {physical:#x}: the bus refused")
        return bool(status["memory_done"])

    # What happened -----------------------------------------------------------------------------------------------

    def pop_fault(self) -> Steps[Fault | None]:
        """The oldest page fault that is queued; None when there is none."""
        found = yield from _read("FAULT")
        if not found["valid"]:
            return None
        linear = yield from _read_wide("FAULT_LINEAR")
        yield from _write("DO", pop_fault=1)
        return Fault(linear, found["code"], found["tag"])

    def counters(self, *, clear: bool = False) -> Steps[dict[str, int]]:
        """Every counter as it was in one cycle; with `clear` all count from 0 on after it."""
        yield from _write("DO", snapshot=1, clear_counters=clear)
        values = {}
        for name in COUNTERS:
            values[name] = yield from _read_wide(f"COUNT_{name.upper()}")
        return values

    def ended(self) -> Steps[int]:
        """How many commands have ended since the reset, modulo 2**32."""
        return (yield from _read("DONE"))["value"]

    def status(self) -> Steps[dict[str, int]]:
        """The fields of STATUS."""
        return (yield from _read("STATUS"))

    def clear_status(self, **names: int) -> Steps[None]:
        """Clear fields of STATUS that tell what went wrong."""
        yield from _write("STATUS", **names)

    def interrupts(self) -> Steps[frozenset[str]]:
        """What has happened, by the names of `map.SOURCES`."""
        found = yield from _read("IRQ_RAW")
        return frozenset(name for name, value in found.items() if value)

    def enable_interrupts(self, *names: str) -> Steps[None]:
        """These raise the interrupt, and no others."""
        yield from _write("IRQ_MASK", **_chosen(names))

    def clear_interrupts(self, *names: str) -> Steps[None]:
        """Forget these, but for those whose cause stays."""
        yield from _write("IRQ_RAW", **_chosen(names))

    def raise_interrupts(self, *names: str) -> Steps[None]:
        """As if these had happened."""
        yield from _write("IRQ_SET", **_chosen(names))


def _chosen(names: tuple[str, ...]) -> dict[str, int]:
    unknown = set(names) - SOURCES.keys()
    if unknown:
        raise ValueError(f"no interrupt {', '.join(sorted(unknown))}: there are {', '.join(SOURCES)}")
    return dict.fromkeys(names, 1)
