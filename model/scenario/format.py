"""The scenario format: reading a file, and refusing a malformed one with a line that names file and line."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ptewalk.model.linux import TASK_PAGES
from ptewalk.model.scenario import verbs
from ptewalk.model.state.machine import ANON_SIZES, CONTROL
from ptewalk.model.x86 import LEVELS_4, LEVELS_5, PAGE_BYTES, PAGE_SHIFT, Control

_GZIP_MAGIC: Final = b"\x1f\x8b"
_CR4_LA57: Final = 12
_REGISTERS: Final = {
    "cr0": {16: Control.WP},
    "cr4": {7: Control.PGE, _CR4_LA57: Control.LA57, 20: Control.SMEP, 21: Control.SMAP, 22: Control.PKE},
    "efer": {11: Control.NXE},
}
"""Key of the scenario line to bits of the register, each with its control bit."""
_THP_ANON: Final = "thp_anon"
"""Boot parameter, and key of the scenario line, for sizes of transparent huge pages (transhuge.rst)."""
_Types = tuple[type, ...]
_INT: Final[_Types] = (int,)
_TEXT: Final[_Types] = (str,)
_LIST: Final[_Types] = (list,)


class FormatError(Exception):
    """A scenario file is not what docs/scenario-format.md says; the text names file, line and rule."""


@dataclass
class Step:
    """One step: the operation and what was recorded after it.

    Attributes
    ----------
    line : int
        Line of the file.
    op : dict
        ``who``, ``op`` and the verb's arguments.
    recorded : dict or None
        ret, errno, vals, scan, state as recorded; None in a scenario without answers.
    """

    line: int
    op: dict[str, Any]
    recorded: dict[str, Any] | None

    @cached_property
    def given(self) -> dict[str, Any]:
        """Every argument of the operation, as its verb uses it; raises as `verbs.arguments` does."""
        return verbs.arguments(self.op, strict=self.recorded is None)


@dataclass
class Scenario:
    """One scenario of a file.

    Attributes
    ----------
    name, doc : str
    base : int
        Byte address of page 0.
    steps : list of Step
    source : str
        File and line, for messages.
    header : dict
        The scenario line.
    """

    name: str
    doc: str
    base: int
    steps: list[Step]
    source: str
    header: dict[str, Any]

    @property
    def control(self) -> int:
        """Control bits of the recorded guest; those of a register that the line does not tell are the usual ones."""
        control = CONTROL
        for key, bits in _REGISTERS.items():
            register = int(self.header[key], 16) if key in self.header else 0
            for bit, name in bits.items() if key in self.header else ():
                control = control & ~(1 << name) | (register >> bit & 1) << name
        return control

    @property
    def thp_anon(self) -> str:
        """The boot parameter of that name; empty: transparent huge pages have 2 MiB."""
        return next((setting for setting in ANON_SIZES if _asks_for_sizes(self.header, setting)), "")

    @property
    def window(self) -> int | None:
        """First page that the recorder did not look at, as far as the recording shows it; None: it shows none.

        Inside the window every page of an area with `sd` is soft-dirty; where that stops inside an area, the window
        ends.
        """
        for step in self.steps:
            state = (step.recorded or {}).get("state") or {}
            for seen in state.values():
                end = _window_of(seen)
                if end is not None:
                    return end
        return None


def _window_of(seen: dict[str, Any]) -> int | None:
    covered = sorted((r[0], r[0] + r[1]) for r in seen.get("pages") or [] if "D" in r[2])
    for vma in seen.get("vmas") or []:
        if "sd" not in vma["flags"]:
            continue
        at = vma["page"]
        for start, end in covered:
            if start <= at < end:
                at = end
        if at < vma["page"] + vma["n"]:
            return int(at)
    return None


def read(path: str | Path) -> list[Scenario]:
    """The scenarios of a file, which ends in .jsonl or .jsonl.gz.

    Raises
    ------
    FormatError
        The file is missing, cut off or malformed.
    """
    return list(_scenarios(str(path), _lines(path)))


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    name = str(path)
    if not name.endswith((".jsonl", ".jsonl.gz")):
        raise FormatError(f"{name}: a scenario file ends in .jsonl or .jsonl.gz")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FormatError(f"{name}: cannot be read: {error.strerror or error}") from None
    if name.endswith(".gz"):
        if not data.startswith(_GZIP_MAGIC):
            raise FormatError(f"{name}:1: not a gzip file, although its name ends in .gz")
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise FormatError(f"{name}: the gzip data are cut off or damaged: {error}") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        bad = data[: error.start].count(b"\n") + 1
        raise FormatError(f"{name}:{bad}: not UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _scenarios(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[Scenario]:
    """Scenarios of numbered lines."""
    current: Scenario | None = None
    lives = verbs.Lives()
    number = 0
    for number, line in lines:
        where = f"{name}:{number}"
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise FormatError(f"{where}: not JSON: {getattr(error, 'msg', 'nested too deeply')}") from None
        if not isinstance(record, dict):
            raise FormatError(f"{where}: a line must be an object, not {type(record).__name__}")
        if "va" in record:
            raise FormatError(f"{where}: this is a recorded page walk: give the file to ptewalk walks")
        kind = _key(record, "t", _TEXT, where)
        if kind == "scenario":
            if current is not None:
                yield _finished(current)
            current, lives = _header(record, where), verbs.Lives()
        elif kind == "step":
            if current is None:
                raise FormatError(f"{where}: a step before any scenario line")
            if _key(record, "name", _TEXT, where) != current.name:
                raise FormatError(f"{where}: step of {record['name']!r} inside scenario {current.name!r}")
            if _key(record, "i", _INT, where) != len(current.steps):
                raise FormatError(f"{where}: step {record['i']} where step {len(current.steps)} was due")
            current.steps.append(_step(record, number, where, lives))
        else:
            raise FormatError(f'{where}: "t" must be "scenario" or "step", not {kind!r}')
    if current is None:
        raise FormatError(f"{name}:{number or 1}: no scenario in the file")
    yield _finished(current)


def _key(record: dict[str, Any], key: str, types: _Types, where: str) -> Any:
    """A required key of one of the given types."""
    if key not in record:
        raise FormatError(f"{where}: key {key!r} is missing")
    value = record[key]
    if not isinstance(value, types) or isinstance(value, bool):
        names = " or ".join(t.__name__ for t in types)
        raise FormatError(f"{where}: {key!r} must be {names}, not {value!r:.40}")
    return value


def _header(record: dict[str, Any], where: str) -> Scenario:
    name = _key(record, "name", _TEXT, where)
    base_text = _key(record, "base", _TEXT, where)
    try:
        base = int(base_text, 16)
    except ValueError:
        raise FormatError(f"{where}: 'base' must be a hexadecimal string, not {base_text!r:.40}") from None
    if _key(record, "steps", _INT, where) < 0:
        raise FormatError(f"{where}: 'steps' must not be negative, not {record['steps']}")
    for key in _REGISTERS:
        if key in record:
            text = _key(record, key, _TEXT, where)
            if not text or text.strip("0123456789abcdefABCDEF"):
                raise FormatError(f"{where}: {key!r} must be hexadecimal, not {text!r:.40}")
    _check_huge_sizes(record, where)
    levels = LEVELS_5 if int(record.get("cr4", "0"), 16) >> _CR4_LA57 & 1 else LEVELS_4
    if base % PAGE_BYTES or not 0 <= base >> PAGE_SHIFT <= TASK_PAGES[levels]:
        raise FormatError(f"{where}: 'base' must be a page-aligned user address, not {base_text}")
    return Scenario(name, str(record.get("doc", "")), base, [], where, record)


def _asks_for_sizes(record: dict[str, Any], setting: str | None = None) -> str | None:
    """The key that tells of sizes of transparent huge pages (boot with thp_anon), here of one setting alone."""
    for key, value in record.items():
        if key == _THP_ANON:
            if setting is None or value == setting:
                return key
        elif key not in ("name", "doc"):
            text = str(value)
            found = re.findall(rf"\b{_THP_ANON}=([^\s\"']*)", text) if _THP_ANON in text else []
            if found and (setting is None or set(found) == {setting}):
                return key
    return None


def _check_huge_sizes(record: dict[str, Any], where: str) -> None:
    """Refuse a scenario of a machine with sizes of transparent huge pages that are not modelled."""
    key = _asks_for_sizes(record)
    if key is not None and not any(_asks_for_sizes(record, setting) for setting in ANON_SIZES):
        raise FormatError(
            f"{where}: {key!r} is {record[key]!r:.60}, but of the sizes of transparent huge pages ({_THP_ANON})"
            f" {', '.join(ANON_SIZES)} alone is modelled: record it with that, or without"
        )


def _finished(scenario: Scenario) -> Scenario:
    due = scenario.header["steps"]
    if len(scenario.steps) != due:
        found = len(scenario.steps)
        wrong = f"is cut off after {found} of {due} steps"
        if found > due:
            wrong = f"has {found} steps, not {due}: mend 'steps'"
        raise FormatError(f"{scenario.source}: scenario {scenario.name!r} {wrong}")
    return scenario


def _step(record: dict[str, Any], number: int, where: str, lives: verbs.Lives) -> Step:
    op = _key(record, "op", (dict,), where)
    recorded = None
    if "ret" in record or "state" in record:
        _key(record, "ret", _INT, where)
        _key(record, "vals", _LIST, where)
        state = _key(record, "state", (dict,), where)
        for who, seen in state.items():
            if not isinstance(seen, dict) or not isinstance(seen.get("pages", []), list | None):
                raise FormatError(f"{where}: state of process {who!r:.10} must be an object with lists")
            _check_state(seen, where)
        recorded = record
    step = Step(number, op, recorded)
    try:
        given = step.given
        lives.check(given)
    except verbs.OperationError as error:
        raise FormatError(f"{where}: {error}") from None
    if recorded is None or recorded["ret"] != -1:
        lives.follow(given)
    return step


def _check_state(seen: dict[str, Any], where: str) -> None:
    """Shapes of the recorded lists, so that a comparison cannot stumble."""
    for key in ("pages", "vmas", "ptes", "tables", "contents"):
        if not isinstance(seen.get(key), list | None):
            raise FormatError(f"{where}: {key!r} must be a list, not {seen[key]!r:.40}")
    for run in seen.get("pages") or []:
        if not isinstance(run, list) or len(run) not in (6, 9) or not all(isinstance(run[k], int) for k in (0, 1, 5)):
            raise FormatError(f"{where}: a run of 'pages' is [start, n, flags, kind, id, step], not {run!r:.60}")
        if not isinstance(run[2], str) or not isinstance(run[3], str) or not isinstance(run[4], int | None):
            raise FormatError(f"{where}: a run of 'pages' is [start, n, flags, kind, id, step], not {run!r:.60}")
    for vma in seen.get("vmas") or []:
        if not isinstance(vma, dict) or not isinstance(vma.get("page"), int) or not isinstance(vma.get("n"), int):
            raise FormatError(f"{where}: an entry of 'vmas' is an object with page, n, perm and flags, not {vma!r:.60}")
        if not isinstance(vma.get("flags"), list):
            raise FormatError(f"{where}: 'flags' of an area must be a list, not {vma.get('flags')!r:.40}")
    for row in seen.get("tables") or []:
        good = isinstance(row, list) and len(row) == 4 and isinstance(row[2], str)
        if not good or not all(isinstance(row[k], int) for k in (0, 1, 3)):
            raise FormatError(f"{where}: a row of 'tables' is [level, page, flags, id], not {row!r:.60}")
    if not isinstance(seen.get("root"), int | None):
        raise FormatError(f"{where}: 'root' must be a number, not {seen['root']!r:.40}")
    for run in seen.get("ptes") or []:
        if not isinstance(run, list) or len(run) != 7 or not all(isinstance(run[k], int) for k in (0, 1, 2, 6)):
            raise FormatError(f"{where}: a run of 'ptes' is [page, n, level, flags, upper, id, step], not {run!r:.60}")
        if not isinstance(run[3], str) or run[3].strip("0123456789abcdef") or not run[3]:
            raise FormatError(f"{where}: flags of 'ptes' must be hexadecimal, not {run[3]!r:.40}")
        if not isinstance(run[5], int | None):
            raise FormatError(f"{where}: the id of a run of 'ptes' must be a number or null, not {run[5]!r:.40}")
    for run in seen.get("contents") or []:
        good = isinstance(run, list) and len(run) == 3 and isinstance(run[2], str)
        if not good or not all(isinstance(run[k], int) for k in (0, 1)):
            raise FormatError(f"{where}: a run of 'contents' is [page, n, checksum], not {run!r:.60}")


def boots_with_v1(name: str) -> bool:
    """Was this 3.11 scenario recorded on a machine that saw no clear_refs 4 at boot (the two pagemap sets, v01 on)?"""
    return name.startswith("v0")
