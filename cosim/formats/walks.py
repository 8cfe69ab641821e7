"""The walk format: one page walk per line, with the answer that real engines gave; reading, writing, checking,
counting.

docs/walk-format.md tells every key.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import write_lines
from ptewalk.model import x86
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, Result, State, translate

PHYSICAL_BITS: Final = 40
"""MAXPHYADDR of recorded walks where nothing else is said."""
ROOT: Final = {x86.LEVELS_4: 0x204000, x86.LEVELS_5: 0x205000}
"""Number of levels to the physical address of the recorded walks' top-level table."""
ARENAS: Final = ((0x1000000, 0x400000), (0x41000000, 0x400000))
"""(physical address, bytes) of the data that recorded walks end in."""
TRUSTED: Final = 3
"""The trust of a case on which every engine agreed."""

NO_FAMILY: Final = "-"
"""Family of a walk whose line names none."""

_ACCESS: Final = {"R": x86.Access.READ, "W": x86.Access.WRITE, "X": x86.Access.FETCH, "I": x86.Access.READ}
_P: Final = 1 << x86.EntryBit.P
_A: Final = 1 << x86.EntryBit.A
_D: Final = 1 << x86.EntryBit.D
_PS: Final = 1 << x86.EntryBit.PS
_FRAME: Final = (1 << x86.FRAME_HIGH + 1) - (1 << x86.FRAME_LOW)
_HEX: Final = re.compile("[0-9a-fA-F]{1,16}")


class WalkFileError(ToolError):
    """A walk file cannot be read or written: one line that names the file, the line, the rule and the value."""


@dataclass(frozen=True, slots=True)
class WalkCase:
    """One line of a walk file.

    Attributes
    ----------
    number : int
        Running number (i); the line's where it has none.
    family : str
        One capital letter; "-" where the line has none.
    kind : str
        Access, a letter of "RWXI".
    user : bool
        CPL is 3.
    control : int
        Control bits by `x86.Control`, AC included, below 512.
    linear : int
        Linear address.
    entries : tuple of (address, value)
        Every word of the tables that is not 0, before the access.
    outcome : x86.Outcome
        OK, PAGE_FAULT or GENERAL_PROTECTION.
    value : int
        Physical address of OK, error code of PAGE_FAULT, 0 of GENERAL_PROTECTION.
    added : tuple of int or None
        Bits added to each entry (ad); None: not recorded, and not compared.
    eager : tuple of int or None
        After a fault: bits added by a walk that sets A as it goes, when different (aq).
    trust : int
        3: every engine agrees. 1: engines differ. 0: no engine, the manual only.
    pkru, pkrs : int
        Key registers.
    voices : str
        Engines that gave this outcome (v).
    others : object
        The differing engines' answers as the file has them (w); None when absent.
    root : int
        Physical address of the top-level table; 0 for the format's own (see `ROOT`).
    physical_bits : int
        MAXPHYADDR of the machine.
    gigabyte_pages : bool
        The machine has 1 GiB pages.
    """

    number: int
    family: str
    kind: str
    user: bool
    control: int
    linear: int
    entries: tuple[tuple[int, int], ...]
    outcome: x86.Outcome
    value: int
    added: tuple[int, ...] | None
    eager: tuple[int, ...] | None = None
    trust: int = TRUSTED
    pkru: int = 0
    pkrs: int = 0
    voices: str = ""
    others: object = None
    root: int = 0
    physical_bits: int = PHYSICAL_BITS
    gigabyte_pages: bool = True

    @property
    def levels(self) -> int:
        """Number of levels of the walk."""
        return x86.LEVELS_5 if self.control >> x86.Control.LA57 & 1 else x86.LEVELS_4

    @property
    def table_root(self) -> int:
        """Physical address of the top-level table."""
        return self.root or ROOT[self.levels]

    def state(self, *, track: Track = Track.OFF, saved_dirty: bool = False, soft_dirty: bool = True) -> State:
        """The control state of this walk, with a way to track of the caller's choice."""
        control = self.control & ~(1 << x86.Control.AC)
        return State(
            self.table_root,
            control,
            self.pkru,
            self.pkrs,
            track,
            saved_dirty,
            soft_dirty,
            gigabyte_pages=self.gigabyte_pages,
        )

    def request(self) -> Request:
        """The access of this walk."""
        ac = bool(self.control >> x86.Control.AC & 1)
        return Request(self.linear, _ACCESS[self.kind], self.user, self.kind == "I", ac)

    def memory(self) -> SparseMemory:
        """A physical memory that holds the tables."""
        memory = SparseMemory(self.physical_bits)
        for frame in self.table_frames():
            memory.add_frame(frame)
        for address, value in self.entries:
            memory.store(address, value)
        return memory

    def table_frames(self) -> list[int]:
        """Frame numbers of the tables, ascending."""
        frames = {address >> x86.PAGE_SHIFT for address, _ in self.entries}
        return sorted(frames | {self.table_root >> x86.PAGE_SHIFT})


def table_words(memory: SparseMemory, frames: Iterable[int]) -> dict[int, int]:
    """Address to value of every word of the table `frames` that is not 0."""
    words = {}
    for frame in frames:
        row = memory.frame(frame)
        for word in np.flatnonzero(row).tolist():
            words[(frame << x86.PAGE_SHIFT) + word * x86.ENTRY_BYTES] = int(row[word])
    return words


def run_on_model(case: WalkCase, *, eager: bool = True) -> tuple[Result, dict[int, int]]:
    """The golden model's result of `case`, and every word of its tables that is not 0 afterwards."""
    memory = case.memory()
    result = translate(memory, case.state(), case.request(), eager=eager)
    return result, table_words(memory, case.table_frames())


def read_walks(path: str | Path, *, physical_bits: int = PHYSICAL_BITS, gigabyte_pages: bool = True) -> list[WalkCase]:
    """All walks of a ``.jsonl`` or ``.jsonl.gz`` file.

    Parameters
    ----------
    physical_bits : int
        MAXPHYADDR of the machine that they were recorded on.
    gigabyte_pages : bool
        It has 1 GiB pages.

    Raises
    ------
    WalkFileError
        The file is missing, not of these kinds, cut off, empty or malformed.
    """
    path = Path(path)
    cases = [
        replace(_parse(path, number, line, physical_bits), gigabyte_pages=gigabyte_pages)
        for number, line in _lines(path)
    ]
    if not cases:
        raise WalkFileError(f"{path}: a walk file must hold at least one walk, this one is empty")
    return cases


def write_walks(path: str | Path, cases: Iterable[WalkCase]) -> None:
    """Write `cases` to a ``.jsonl`` or ``.jsonl.gz`` file; the same cases give the same bytes.

    Raises
    ------
    ToolError
        The name has another ending, or the file cannot be written.
    """
    path = Path(path)
    _is_compressed(path)
    write_lines(path, (_line(case) for case in cases))


def _is_compressed(path: Path) -> bool:
    if path.name.endswith(".jsonl"):
        return False
    if path.name.endswith(".jsonl.gz"):
        return True
    raise WalkFileError(f"{path}: a walk file's name must end in .jsonl or .jsonl.gz")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a file, the first is 1."""
    compressed = _is_compressed(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WalkFileError(f"{path}: cannot be read: {error.strerror}") from None
    if compressed:
        try:
            data = gzip.decompress(data)
        except gzip.BadGzipFile:
            raise WalkFileError(f"{path}: a file that ends in .gz must be gzip data, this one is not") from None
        except (EOFError, zlib.error):
            raise WalkFileError(f"{path}: the gzip data is cut off or damaged") from None
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        try:
            yield number, line.decode()
        except UnicodeDecodeError:
            raise WalkFileError(f"{path}:{number}: a walk file must be UTF-8 text") from None


class _Malformed(ValueError):
    """What is wrong with a line, without its place."""


def _parse(path: Path, number: int, line: str, bits: int) -> WalkCase:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        cut = "" if line.endswith("\n") else ", and its end of line is missing: the file may be cut off"
        raise WalkFileError(f"{path}:{number}: each line must be one JSON object, this one is not{cut}") from None
    try:
        return _case(value, number, bits)
    except _Malformed as error:
        raise WalkFileError(f"{path}:{number}: {error}") from None


def _case(line: object, place: int, bits: int) -> WalkCase:
    if not isinstance(line, dict):
        raise _Malformed(f"each line must be a JSON object, not {_short(line)}")
    if line.get("t") in ("scenario", "step"):
        raise _Malformed("this is a scenario: give the file to ptewalk replay")
    kind = _text(line, "k", "[RWXI]", "R, W, X or I")
    control = _number(line, "c", 1 << x86.Control.AC + 1)
    entries = _entries(line, bits)
    outcome, value = _outcome(line, bits)
    eager = _added(line, "aq", len(entries)) if "aq" in line else None
    if eager is not None and outcome != x86.Outcome.PAGE_FAULT:
        raise _Malformed("key 'aq' is only for an outcome of PF")
    root = _hex("root", line["root"], bits, x86.PAGE_BYTES) if "root" in line else 0
    return WalkCase(
        number=_number(line, "i", 1 << 63) if "i" in line else place,
        family=_text(line, "f", "[A-Z]", "one capital letter") if "f" in line else NO_FAMILY,
        kind=kind,
        user=bool(_number(line, "u", 2)),
        control=control,
        linear=_hex("va", _get(line, "va"), 64, 8),
        entries=entries,
        outcome=outcome,
        value=value,
        added=_added(line, "ad", len(entries)) if "ad" in line else None,
        eager=eager,
        trust=_number(line, "t", TRUSTED + 1) if "t" in line else TRUSTED,
        pkru=_number(line, "kr", 1 << 32) if "kr" in line else 0,
        pkrs=_number(line, "ks", 1 << 32) if "ks" in line else 0,
        voices=_text(line, "v", ".*", "text") if "v" in line else "",
        others=line.get("w"),
        root=root,
        physical_bits=bits,
    )


def _short(value: object) -> str:
    """A value for a message, at most 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _get(line: dict[str, Any], key: str) -> object:
    if key not in line:
        raise _Malformed(f"key {key!r} is missing")
    return line[key]


def _number(line: dict[str, Any], key: str, limit: int) -> int:
    value = _get(line, key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise _Malformed(f"key {key!r} must be a whole number from 0 to {limit - 1}, not {_short(value)}")
    return value


def _text(line: dict[str, Any], key: str, pattern: str, rule: str) -> str:
    value = _get(line, key)
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise _Malformed(f"key {key!r} must be {rule}, not {_short(value)}")
    return value


def _hex(key: str, value: object, bits: int, multiple: int = 1) -> int:
    """The number of a hex text: below 2**bits, and a multiple of `multiple`."""
    if isinstance(value, str) and _HEX.fullmatch(value):
        number = int(value, 16)
        if not number >> bits and number % multiple == 0:
            return number
        wider = number >> bits and bits < x86.MAX_PHYSICAL_BITS and not number >> x86.MAX_PHYSICAL_BITS
    else:
        wider = False
    aligned = f", a multiple of {multiple}" if multiple > 1 else ""
    mend = "; give the machine's width with --physical-bits" if wider else ""
    raise _Malformed(f"key {key!r} must be hex digits below 2**{bits}{aligned}, not {_short(value)}{mend}")


def _list(line: dict[str, Any], key: str) -> list[Any]:
    value = _get(line, key)
    if not isinstance(value, list):
        raise _Malformed(f"key {key!r} must be a list, not {_short(value)}")
    return value


def _entries(line: dict[str, Any], bits: int) -> tuple[tuple[int, int], ...]:
    entries: dict[int, int] = {}
    for item in _list(line, "e"):
        parts = item.split(":") if isinstance(item, str) else []
        if len(parts) != 2:
            raise _Malformed(f"key 'e' must hold \"physical:value\" texts, not {_short(item)}")
        address = _hex("e", parts[0], bits, x86.ENTRY_BYTES)
        if address in entries:
            raise _Malformed(f"key 'e' must name each physical address once, {address:#x} stands twice")
        entries[address] = _hex("e", parts[1], 64)
    return tuple(entries.items())


def _outcome(line: dict[str, Any], bits: int) -> tuple[x86.Outcome, int]:
    value = _list(line, "o")
    if len(value) == 2 and value[0] == "OK":
        return x86.Outcome.OK, _hex("o", value[1], bits)
    if len(value) == 2 and value[0] == "PF":
        return x86.Outcome.PAGE_FAULT, _number({"o": value[1]}, "o", 1 << 16)
    if value == ["GP"]:
        return x86.Outcome.GENERAL_PROTECTION, 0
    raise _Malformed(f'key \'o\' must be ["OK", hex], ["PF", number] or ["GP"], not {_short(value)}')


def _added(line: dict[str, Any], key: str, count: int) -> tuple[int, ...]:
    value = _list(line, key)
    if len(value) != count:
        raise _Malformed(f"key {key!r} must hold one number for each of the {count} entries of 'e', not {len(value)}")
    for bits in value:
        if not isinstance(bits, int) or isinstance(bits, bool) or bits not in (0, _A, _D, _A | _D):
            raise _Malformed(f"key {key!r} must hold 0, {_A}, {_D} or {_A | _D}, not {_short(bits)}")
    return tuple(value)


def _line(case: WalkCase) -> dict[str, Any]:
    line: dict[str, Any] = {"i": case.number, "f": case.family, "k": case.kind, "u": int(case.user), "c": case.control}
    if case.family == NO_FAMILY:
        del line["f"]
    line["va"] = f"{case.linear:x}"
    if case.pkru:
        line["kr"] = case.pkru
    if case.pkrs:
        line["ks"] = case.pkrs
    line["e"] = [f"{address:x}:{value:x}" for address, value in case.entries]
    line["o"] = {
        x86.Outcome.OK: ["OK", f"{case.value:x}"],
        x86.Outcome.PAGE_FAULT: ["PF", case.value],
        x86.Outcome.GENERAL_PROTECTION: ["GP"],
    }[case.outcome]
    line |= {"t": case.trust, "v": case.voices}
    if case.added is not None:
        line["ad"] = list(case.added)
    if case.eager is not None:
        line["aq"] = list(case.eager)
    if case.others is not None:
        line["w"] = case.others
    if case.root:
        line["root"] = f"{case.root:x}"
    return line


def spread(cases: list[WalkCase], limit: int | None) -> list[int]:
    """Indices of at most `limit` cases, taken in turn from each family, so that all families are there."""
    if limit is None or limit >= len(cases):
        return list(range(len(cases)))
    by_family: dict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        by_family[case.family].append(index)
    for indices in by_family.values():
        random.Random(0).shuffle(indices)
    turns = zip_longest(*by_family.values())
    chosen = [index for turn in turns for index in turn if index is not None]
    return sorted(chosen[:limit])
