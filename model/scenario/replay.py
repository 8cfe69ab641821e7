"""The scenario format: reading it, running it on the model, and comparing every field with what was recorded.

`read` gives `Scenario` objects and refuses a malformed file with one line that names file and line. `Replay` runs one
scenario step by step; `replay` runs whole files and counts. A scenario without recorded answers can be run too.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ptewalk.model.errors import Errno
from ptewalk.model.kernel import CONTROL, Kernel, Process
from ptewalk.model.linux import PROFILES, Profile, ScanCategory, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mm.swap import SwapDamage
from ptewalk.model.mmu import Mmu, ModelMmu
from ptewalk.model.proc import pagemap_scan
from ptewalk.model.scenario.snapshot import Recorder, Snapshot
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT, Access, Control

_GZIP_MAGIC: Final = b"\x1f\x8b"
_PAGE_LIMIT: Final = 1 << 34
"""Pages are counted from the base; beyond this none can be an address of the window."""
_KINDS: Final = ("anon", "sanon", "hugetlb", "shugetlb", "hugetlb1g")
_FLAGS: Final = {"mmap": ("populate", "locked", "growsdown"), "mremap": ("MAYMOVE", "FIXED", "DONTUNMAP")}
_CR4: Final = {7: Control.PGE, 12: Control.LA57, 20: Control.SMEP, 21: Control.SMAP, 22: Control.PKE}
"""Bit of CR4 to control bit."""


class FormatError(Exception):
    """A scenario file is not what formats/scenario.md says; the text names file, line and rule."""


class Unsupported(Exception):
    """The model cannot follow this step; the rest of the scenario is skipped."""


# Reading.


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
        """Control bits of the recorded guest; the usual ones when the line does not tell."""
        try:
            cr0, cr4, efer = (int(self.header[key], 16) for key in ("cr0", "cr4", "efer"))
        except KeyError:
            return CONTROL
        control = (cr0 >> 16 & 1) << Control.WP | (efer >> 11 & 1) << Control.NXE
        for bit, name in _CR4.items():
            control |= (cr4 >> bit & 1) << name
        return control

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


_Types = tuple[type, ...]
_INT: Final[_Types] = (int,)
_TEXT: Final[_Types] = (str,)
_LIST: Final[_Types] = (list,)
_RANGE: Final[dict[str, _Types]] = {"page": _INT, "n": _INT}
_VERBS: Final[dict[str, dict[str, _Types]]] = {
    "mmap": {**_RANGE, "prot": _TEXT, "kind": _TEXT, "file_page": _INT, "flags": _LIST},
    "munmap": _RANGE,
    "mlock": _RANGE,
    "munlock": _RANGE,
    "mprotect": {**_RANGE, "prot": _TEXT},
    "pkey_mprotect": {**_RANGE, "prot": _TEXT, "key": _INT},
    "mremap": {**_RANGE, "new_n": _INT, "flags": _LIST, "new_page": _INT},
    "madvise": {**_RANGE, "advice": _TEXT},
    "write": _RANGE,
    "read": _RANGE,
    "mem_write": _RANGE,
    "mem_read": _RANGE,
    "syscall_read_into": {"page": _INT},
    "file_write": {"file": (int, str), "file_page": _INT},
    "file_read": {"file": (int, str), "file_page": _INT},
    "ftruncate": {"file": (int, str), "n": _INT},
    "clear_refs": {"value": (str, int), "target": _INT},
    "clearraw": {},
    "fork": {"child": _INT},
    "exit": {},
    "setuid": {},
    "uffd_reg": _RANGE,
    "uffd_wp": _RANGE,
    "uffd_unwp": _RANGE,
    "uffd_async_open": {},
    "uffd_async_reg": _RANGE,
    "uffd_async_unreg": _RANGE,
    "uffd_async_wp": _RANGE,
    "uffd_async_unwp": _RANGE,
    "pin": _RANGE,
    "unpin": {},
    "pagemap_scan": _RANGE,
    "wrpkru": {"key": _INT, "rights": _INT},
    "move_pages": {**_RANGE, "node": _INT},
    "ksm_scan": {},
    "ksm": {},
    "remapfile": {**_RANGE, "file_page": _INT},
    "same": _RANGE,
    "sync": {},
    "swapoff": {},
    "swapon": {},
}
"""Verb to its required arguments and their types."""
_PAGES: Final = ("page", "new_page", "file_page")
_SIZES: Final = ("n", "new_n", "step")
_NUMBERS: Final = ("who", "target", "child", "node", "key", "rights")


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
            current = _header(record, where)
        elif kind == "step":
            if current is None:
                raise FormatError(f"{where}: a step before any scenario line")
            if _key(record, "name", _TEXT, where) != current.name:
                raise FormatError(f"{where}: step of {record['name']!r} inside scenario {current.name!r}")
            if _key(record, "i", _INT, where) != len(current.steps):
                raise FormatError(f"{where}: step {record['i']} where step {len(current.steps)} was due")
            current.steps.append(_step(record, number, where))
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
    if base % PAGE_BYTES or not 0 <= base < 1 << 47:
        raise FormatError(f"{where}: 'base' must be a page-aligned user address, not {base_text}")
    if _key(record, "steps", _INT, where) < 0:
        raise FormatError(f"{where}: 'steps' must not be negative, not {record['steps']}")
    for key in ("cr0", "cr4", "efer"):
        if key in record:
            text = _key(record, key, _TEXT, where)
            if not text or text.strip("0123456789abcdefABCDEF"):
                raise FormatError(f"{where}: {key!r} must be hexadecimal, not {text!r:.40}")
    return Scenario(name, str(record.get("doc", "")), base, [], where, record)


def _finished(scenario: Scenario) -> Scenario:
    due = scenario.header["steps"]
    if len(scenario.steps) != due:
        raise FormatError(
            f"{scenario.source}: scenario {scenario.name!r} is cut off: {len(scenario.steps)} steps, {due} announced"
        )
    return scenario


def _step(record: dict[str, Any], number: int, where: str) -> Step:
    op = _key(record, "op", (dict,), where)
    _check_op(op, where)
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
    return Step(number, op, recorded)


def _check_state(seen: dict[str, Any], where: str) -> None:
    """Shapes of the recorded lists, so that a comparison cannot stumble."""
    for key in ("pages", "vmas", "ptes", "tables"):
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


def _check_op(op: dict[str, Any], where: str) -> None:
    """A step's operation: known verb, arguments there, of the right type, and in range."""
    verb = _key(op, "op", _TEXT, where)
    _key(op, "who", _INT, where)
    if verb not in _VERBS:
        raise FormatError(f"{where}: unknown verb {verb!r:.40}")
    for key, types in _VERBS[verb].items():
        if op.get(key) is None and verb in ("uffd_async_open", "unpin"):
            continue
        _key(op, key, types, where)
    for key in (*_PAGES, *_SIZES, *_NUMBERS):
        if op.get(key) is not None and (not isinstance(op[key], int) or isinstance(op[key], bool)):
            raise FormatError(f"{where}: {key!r} must be a whole number, not {op[key]!r:.40}")
    for key in _PAGES:
        if isinstance(op.get(key), int) and not 0 <= op[key] < _PAGE_LIMIT:
            raise FormatError(f"{where}: {key} {op[key]} is out of range (0 to {_PAGE_LIMIT - 1})")
    for key in _SIZES:
        if isinstance(op.get(key), int) and verb != "pagemap_scan":
            if op[key] < 0:
                raise FormatError(f"{where}: negative size: {key} is {op[key]}")
            if op[key] >= _PAGE_LIMIT:
                raise FormatError(f"{where}: {key} {op[key]} is out of range (0 to {_PAGE_LIMIT - 1})")
    if verb == "pagemap_scan" and not -_PAGE_LIMIT < op["n"] < _PAGE_LIMIT:
        raise FormatError(f"{where}: n {op['n']} is out of range")
    if op.get("step") == 0:
        raise FormatError(f"{where}: 'step' must be at least 1, not 0")
    if "prot" in op and (op["prot"] != "-" and (op["prot"].strip("rwx") or not op["prot"])):
        raise FormatError(f"{where}: 'prot' is made of r, w and x, or \"-\", not {op['prot']!r:.40}")
    if verb == "mmap":
        kind = op["kind"]
        if kind not in _KINDS and not (len(kind) == 2 and kind[0] in "ps" and kind[1].isdigit()):
            raise FormatError(f"{where}: unknown kind of mapping {kind!r:.40}")
    if verb in _FLAGS:
        for flag in op["flags"]:
            if flag not in _FLAGS[verb]:
                raise FormatError(f"{where}: unknown flag {flag!r:.40} of {verb}")
    if verb == "wrpkru" and not (0 <= op["key"] < 16 and 0 <= op["rights"] < 4):
        raise FormatError(f"{where}: wrpkru takes a key of 0 to 15 and rights of 0 to 3")
    if verb == "pkey_mprotect" and not 0 <= op["key"] < 16:
        raise FormatError(f"{where}: pkey_mprotect takes a key of 0 to 15, not {op['key']}")
    if verb == "pagemap_scan":
        for key in (
            "flags",
            "category_mask",
            "category_anyof_mask",
            "category_inverted",
            "return_mask",
            "vec_len",
            "max_pages",
            "size",
            "start",
            "end",
            "vec",
            "sb",
            "eb",
            "fd",
        ):
            if op.get(key) is not None:
                _number(op[key], key, where)
    if verb == "clearraw" and not any(isinstance(op.get(k), str) for k in ("value", "text")):
        raise FormatError(f"{where}: key 'value' is missing")


def clear_refs_text(op: dict[str, Any]) -> str:
    """What clear_refs, or clearraw with its escapes undone, writes to the file."""
    text = str(op["value"] if "value" in op else op["text"])
    if op["op"] == "clearraw":
        text = text.replace("\\n", "\n").replace("\\0", "\0").replace("\\t", "\t")
    return text


def _number(value: Any, key: str, where: str) -> int:
    """An integer, or a string of one (addresses are hexadecimal strings)."""
    if isinstance(value, str):
        try:
            return int(value, 0)
        except ValueError:
            raise FormatError(f"{where}: {key!r} must be a number, not {value!r:.40}") from None
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"{where}: {key!r} must be a number, not {value!r:.40}")
    return value


# Running.


@dataclass
class Outcome:
    """What a step answered.

    Attributes
    ----------
    ret : int
    errno : str or None
    vals : list
    scan : dict or None
        Of a pagemap_scan step.
    state : dict
        Process to `Snapshot`.
    """

    ret: int
    errno: str | None
    vals: list[Any]
    scan: dict[str, Any] | None
    state: dict[int, Snapshot]


class Replay:
    """One scenario on one kernel, step by step.

    Parameters
    ----------
    scenario : Scenario
    profile : Profile
    track : Track
    soft_dirty : bool
        CONFIG_MEM_SOFT_DIRTY.
    mmu : callable
        Makes the MMU for a physical memory.
    pagemap_v2 : bool or None
        Whether pagemap has its second layout at the start; None: unless this is the first scenario after a boot without
        a clear_refs 4 (`boots_with_v1`).
    pagemap_fixed : bool
        See `Kernel`.
    raw_tables : bool
        Take `tables` and `ptes` too.
    watch : bool
        See `Kernel`.

    Attributes
    ----------
    kernel : Kernel
    """

    def __init__(
        self,
        scenario: Scenario,
        profile: Profile,
        *,
        track: Track = Track.OFF,
        soft_dirty: bool = True,
        mmu: Callable[[SparseMemory], Mmu] = ModelMmu,
        pagemap_v2: bool | None = None,
        pagemap_fixed: bool = False,
        raw_tables: bool = True,
        watch: bool = False,
    ) -> None:
        self.scenario = scenario
        self.raw_tables = raw_tables
        self.table_ids = TableIds()
        self.kernel = Kernel(
            profile,
            soft_dirty=soft_dirty,
            track=track,
            base=scenario.base >> PAGE_SHIFT,
            control=scenario.control,
            mmu=mmu,
            pagemap_v2=profile.pagemap_v2 or not boots_with_v1(scenario.name) if pagemap_v2 is None else pagemap_v2,
            pagemap_fixed=pagemap_fixed,
            watch=watch,
        )
        self._recorder = Recorder(self.kernel, raw_tables=raw_tables)
        self._index = 0

    def twin(self) -> Replay:
        """The same scenario from its start, on a kernel of the same kind with the golden MMU."""
        kernel = self.kernel
        return Replay(
            self.scenario,
            kernel.profile,
            track=kernel.track,
            soft_dirty=kernel.entries.soft_dirty,
            pagemap_v2=kernel.pagemap_v2,
            pagemap_fixed=kernel.pagemap_fixed,
            raw_tables=self.raw_tables,
        )

    def step(self) -> Outcome:
        """Run the next step.

        Raises
        ------
        Unsupported
            The model cannot follow it.
        """
        index, step = self._index, self.scenario.steps[self._index]
        self._index += 1
        self._hints(step)
        self.kernel.frames.begin_step()
        process = self.kernel.processes.get(step.op["who"])
        if process is None:
            raise Unsupported(f"process {step.op['who']} does not live")
        scan = None
        try:
            ret, vals, scan = self._run(process, step.op, (index + 1) & 0xFF)
            errno = None
            if scan is not None and scan.pop("error", None):
                ret, errno = -1, scan.pop("errno")
        except Errno as error:
            ret, errno, vals = -1, error.name, []
        except SwapDamage as damage:
            raise Unsupported(str(damage)) from None
        return Outcome(ret, errno, vals, scan, self._recorder.take((step.recorded or {}).get("state")))

    def _hints(self, step: Step) -> None:
        """What no rule determines is taken from the recording: swap slots of 3.11, and refused huge pages."""
        state = (step.recorded or {}).get("state") or {}
        hints = self.kernel.swap.hints
        hints.clear()
        refused = self.kernel.huge_refused
        refused.clear()
        for who, seen in state.items():
            for run in seen.get("pages") or []:
                if len(run) == 9:
                    for j in range(run[1]):
                        hints[int(who), run[0] + j] = (run[6], run[7] + j * run[8])
            small = {r[0] >> 9 for r in seen.get("ptes") or [] if r[2] == 1}
            refused.update((int(who), block) for block in small)

    def _run(self, process: Process, op: dict[str, Any], value: int) -> tuple[int, list[Any], dict[str, Any] | None]:
        """One operation: (ret, vals, scan)."""
        kernel = self.kernel
        verb = op["op"]
        at = kernel.base + (op.get("page") or 0)
        n = op.get("n") or 0
        if verb in ("write", "read"):
            pages = range(at, at + n, op.get("step") or 1)
            access = Access.WRITE if verb == "write" else Access.READ
            return 0, kernel.touch_pages(process, pages, access, value), None
        if verb in ("mem_write", "mem_read"):
            pages = range(at, at + n, op.get("step") or 1)
            return 0, kernel.mem_access(process, pages, write=verb == "mem_write", value=value), None
        if verb == "mmap":
            new = kernel.mmap(process, at, n, op["prot"], op["kind"], op["file_page"], op["flags"])
            return new - kernel.base, [], None
        if verb == "mremap":
            new = kernel.mremap(process, at, n, op["new_n"], op["flags"], kernel.base + op["new_page"])
            return new - kernel.base, [], None
        if verb == "clear_refs" or verb == "clearraw":
            text = clear_refs_text(op)
            target = op.get("target", process.who)
            if target not in kernel.processes:
                raise Unsupported(f"clear_refs of process {target}, which does not live")
            return kernel.clear_refs(target, text, process), [], None
        if verb == "pagemap_scan":
            return self._scan(process, op, at, n)
        return self._run_rest(process, op, at, n, value)

    def _run_rest(
        self, process: Process, op: dict[str, Any], at: int, n: int, value: int
    ) -> tuple[int, list[Any], dict[str, Any] | None]:
        """The verbs that mostly answer 0."""
        kernel = self.kernel
        verb = op["op"]
        file = str(op.get("file", ""))
        simple: dict[str, Callable[[], object]] = {
            "munmap": lambda: kernel.munmap(process, at, n),
            "mprotect": lambda: kernel.mprotect(process, at, n, op["prot"]),
            "pkey_mprotect": lambda: kernel.mprotect(process, at, n, op["prot"], op["key"]),
            "madvise": lambda: kernel.madvise(process, at, n, op["advice"]),
            "mlock": lambda: kernel.mlock(process, at, n, lock=True),
            "munlock": lambda: kernel.mlock(process, at, n, lock=False),
            "fork": lambda: kernel.fork(process, op["child"]),
            "exit": lambda: kernel.exit(process),
            "ftruncate": lambda: kernel.ftruncate(file, n),
            "uffd_reg": lambda: kernel.uffd_register(process, at, n),
            "uffd_wp": lambda: kernel.uffd_writeprotect(process, at, n, protect=True),
            "uffd_unwp": lambda: kernel.uffd_writeprotect(process, at, n, protect=False),
            "uffd_async_open": lambda: kernel.uffd_open(process, asynchronous=True),
            "uffd_async_reg": lambda: kernel.uffd_register(process, at, n, asynchronous=True),
            "uffd_async_unreg": lambda: kernel.uffd_unregister(process, at, n),
            "uffd_async_wp": lambda: kernel.uffd_writeprotect(process, at, n, protect=True),
            "uffd_async_unwp": lambda: kernel.uffd_writeprotect(process, at, n, protect=False),
            "pin": lambda: kernel.pin(process, at, n),
            "unpin": lambda: kernel.unpin(process, at),
            "wrpkru": lambda: kernel.wrpkru(process, op["key"], op["rights"]),
            "ksm_scan": lambda: kernel.ksm_scan(use_zero_pages=bool(op.get("use_zero_pages"))),
            "ksm": lambda: kernel.ksm_scan(),
            "remapfile": lambda: kernel.remap_file_pages(process, at, n, op["file_page"]),
            "same": lambda: kernel.fill(process, at, n),
            "sync": lambda: kernel.sync(file),
            "swapoff": kernel.swapoff,
            "swapon": lambda: None,
        }
        if verb == "setuid":
            kernel.setuid(process)
            return 0, ["pm=1"], None
        if verb == "syscall_read_into":
            if not kernel.copy_to_user(process, at, 16, 0):
                raise Errno("EFAULT")
            return 1, [], None
        if verb == "file_write":
            kernel.file_write(file, op["file_page"], value)
            return 1, [value], None
        if verb == "file_read":
            found = kernel.file_read(file, op["file_page"])
            return (0, [0], None) if found is None else (1, [found], None)
        if verb == "move_pages":
            return 0, kernel.move_pages(process, at, n, op["node"])[:64], None
        simple[verb]()
        return 0, [], None

    def _scan(
        self, process: Process, op: dict[str, Any], at: int, n: int
    ) -> tuple[int, list[Any], dict[str, Any] | None]:
        """pagemap_scan: addresses of the op are pages from the base, sb and eb bytes, start, end and vec absolute."""
        kernel = self.kernel
        if (op.get("fd") or 0) == -1:
            return -1, [], {"error": True, "errno": "EBADF", "walk_end": None, "regions": []}

        def number(key: str, default: int) -> int:
            found = op.get(key)
            return default if found is None else _number(found, key, self.scenario.source)

        start = number("start", at << PAGE_SHIFT) + number("sb", 0)
        end = number("end", (at + n) << PAGE_SHIFT) + number("eb", 0)
        defaults = pagemap_scan.Argument(start, end)
        names = (
            "flags",
            "size",
            "vec",
            "vec_len",
            "max_pages",
            "category_inverted",
            "category_mask",
            "category_anyof_mask",
            "return_mask",
        )
        argument = pagemap_scan.Argument(start, end, **{name: number(name, getattr(defaults, name)) for name in names})
        try:
            answer = kernel.pagemap_scan(process, argument)
        except Errno as error:
            return -1, [], {"error": True, "errno": error.name, "walk_end": None, "regions": []}
        walk_end = None if answer.walk_end is None else (answer.walk_end >> PAGE_SHIFT) - kernel.base
        regions = [
            [first - kernel.base, count, [c.name for c in ScanCategory if categories & c]]
            for first, count, categories in answer.regions
        ]
        found: dict[str, Any] = {"walk_end": walk_end, "regions": regions}
        if answer.error:
            return -1, [], {"error": True, "errno": answer.error, **found}
        return len(regions), [], found


# Comparing.


class TableIds:
    """Which table of a replay is which table of the recording.

    Canonical numbers depend on the order in which the tables of a step are listed; what counts is that one table is the
    same one throughout: the pairs found must be one to one over the whole scenario.
    """

    def __init__(self) -> None:
        self._expected: dict[int, int] = {}
        self._captured: dict[int, int] = {}

    def match(self, captured: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]]) -> bool:
        """Do two lists of [level, page, flags, id] name the same entries with the same flags, and tables one to one?"""
        one, other = ({(row[0], row[1]): (row[2], row[3]) for row in rows} for rows in (captured, expected))
        if one.keys() != other.keys() or len(one) != len(captured) or len(other) != len(expected):
            return False
        for place, (flags, number) in one.items():
            wanted_flags, wanted = other[place]
            if flags != wanted_flags:
                return False
            if (
                self._expected.setdefault(number, wanted) != wanted
                or self._captured.setdefault(wanted, number) != number
            ):
                return False
        return True


@dataclass
class Difference:
    """Where a step differs: the field, what the model answered and what was recorded."""

    scenario: str
    step: int
    field: str
    captured: Any
    expected: Any

    def __str__(self) -> str:
        return f"{self.scenario} step {self.step}: {self.field}: captured {self.captured!r}, expected {self.expected!r}"


def differences(
    scenario: Scenario,
    index: int,
    outcome: Outcome,
    *,
    raw_tables: bool = True,
    allowed: Callable[[int, int, Any, Any], bool] = lambda who, at, captured, expected: False,
    tables: TableIds | None = None,
) -> list[Difference]:
    """Every field of a step that differs from the recording.

    Parameters
    ----------
    raw_tables : bool
        Compare `root`, `tables` and `ptes` where recorded; the way of tracking must be `off` for that.
    allowed : callable (process, page, captured, expected)
        Asked of each page whose pagemap entry differs, with rows of `page_table`; True: that is no difference.
    tables : TableIds or None
        The same for every step of a scenario.
    """
    recorded = scenario.steps[index].recorded
    if recorded is None:
        return []
    found: list[Difference] = []

    def check(name: str, captured: Any, expected: Any) -> None:
        if captured != expected:
            found.append(Difference(scenario.name, index, name, captured, expected))

    check("errno", outcome.errno, recorded.get("errno"))
    if scenario.steps[index].op["op"] != "syscall_read_into" or outcome.errno:
        check("ret", outcome.ret, recorded["ret"])
        check("vals", outcome.vals, recorded["vals"])
    else:
        # The format does not tell whether success is read(2)'s result, an "ok", or both.
        check("ret", recorded["ret"] in (0, 1) and recorded["vals"] in ([], ["ok"]), True)
    if "scan" in recorded:
        check("scan", outcome.scan, recorded["scan"])
    state = recorded["state"]
    check("state", sorted(outcome.state), sorted(int(who) for who in state))
    ignored = 0
    unsure = scenario.header.get("a_unsure_from")
    if unsure is not None and index >= unsure:
        ignored = 1 << 5
    for who_text, seen in state.items():
        snapshot = outcome.state.get(int(who_text))
        if snapshot is None:
            continue
        if seen.get("pages") is not None and snapshot.pages != seen["pages"]:
            captured, expected = page_table(snapshot.pages), page_table(seen["pages"])
            if captured != expected:
                window = scenario.window
                if window is not None:
                    captured, expected = _cut(captured, window), _cut(expected, window)
                for at in sorted(captured.keys() | expected.keys()):
                    one, other = captured.get(at), expected.get(at)
                    if one != other and not allowed(int(who_text), at, one, other):
                        check(f"pages[{who_text}][{at}]", one, other)
                        break
        if "vmas" in seen:
            check(f"vmas[{who_text}]", snapshot.vmas, seen["vmas"])
        if not raw_tables:
            continue
        if "root" in seen and not (tables or TableIds()).match([[0, 0, "", snapshot.root]], [[0, 0, "", seen["root"]]]):
            check(f"root[{who_text}]", snapshot.root, seen["root"])
        if "tables" in seen and not (tables or TableIds()).match(snapshot.tables or [], seen["tables"]):
            check(f"tables[{who_text}]", snapshot.tables, seen["tables"])
        if "ptes" in seen and (ignored or snapshot.ptes != seen["ptes"]):
            entries, wanted = entry_table(snapshot.ptes, ignored), entry_table(seen["ptes"], ignored)
            for key in sorted(entries.keys() | wanted.keys()):
                if entries.get(key) != wanted.get(key):
                    check(f"ptes[{who_text}][{key[0]}]", entries.get(key), wanted.get(key))
                    break
    return found


def page_table(runs: Sequence[Sequence[Any]]) -> dict[int, tuple[Any, ...]]:
    """`pages` by page: (flags, kind, id, swap type, swap offset)."""
    table: dict[int, tuple[Any, ...]] = {}
    for run in runs:
        start, count, flags, kind, number, step = run[:6]
        slot = run[6:9] if len(run) == 9 else None
        for j in range(count):
            swapped = (slot[0], slot[1] + j * slot[2]) if slot else ()
            table[start + j] = (flags, kind, None if number is None else number + j * step, *swapped)
    return table


def _cut(table: dict[int, tuple[Any, ...]], window: int) -> dict[int, tuple[Any, ...]]:
    """Without the pages beyond the recorder's window that have no frame."""
    return {at: v for at, v in table.items() if at < window or v[2] is not None}


def entry_table(runs: Sequence[Sequence[Any]], ignored: int = 0) -> dict[tuple[int, int], tuple[Any, ...]]:
    """`ptes` by (page, level): (flags without `ignored`, upper, id); a huge leaf is one."""
    table: dict[tuple[int, int], tuple[Any, ...]] = {}
    for start, count, level, flags, upper, number, step in runs:
        value = int(flags, 16) & ~ignored
        if level > 1:
            table[start, level] = (value, upper, number)
            continue
        for j in range(count):
            table[start + j, 1] = (value, upper, None if number is None else number + j * step)
    return table


@dataclass
class Report:
    """What a replay found.

    Attributes
    ----------
    scenarios, steps, agree, differ, skipped : int
        agree + differ + skipped = steps.
    first_difference : Difference or None
    differing : dict
        Scenario to its first difference.
    skipped_scenarios : dict
        Scenario to the reason why the rest of it was skipped.
    """

    scenarios: int = 0
    steps: int = 0
    agree: int = 0
    differ: int = 0
    skipped: int = 0
    first_difference: Difference | None = None
    differing: dict[str, Difference] = field(default_factory=dict)
    skipped_scenarios: dict[str, str] = field(default_factory=dict)


class Judge:
    """What the steps of a replay are compared with: here, their recording."""

    def begin(self, run: Replay) -> None:
        """A scenario begins."""

    def step(self, run: Replay, index: int, outcome: Outcome) -> list[Difference] | None:
        """What differs after a step; None when there is nothing to compare with."""
        scenario = run.scenario
        if scenario.steps[index].recorded is None:
            return None
        return differences(
            scenario, index, outcome, raw_tables=run.raw_tables, allowed=self.allowed(run), tables=run.table_ids
        )

    def allowed(self, run: Replay) -> Callable[[int, int, Any, Any], bool]:
        """See `differences`."""
        return lambda who, at, captured, expected: False


def keeps_v1(scenario: Scenario) -> bool:
    """Was this scenario recorded on the seed commit alone, whose pagemap never changes its layout?

    Told by entries of the first layout behind a clear_refs 4. No file says which commits a kernel has.
    """
    cleared = False
    for step in scenario.steps:
        recorded = step.recorded or {}
        cleared = cleared or (step.op["op"] == "clear_refs" and step.op["value"] == "4" and recorded.get("ret") == 1)
        for seen in (recorded.get("state") or {}).values():
            if cleared and any("1" in run[2] for run in seen.get("pages") or []):
                return True
    return False


def boots_with_v1(name: str) -> bool:
    """Was this 3.11 scenario recorded on a machine that saw no clear_refs 4 at boot (the two pagemap sets, v01 on)?"""
    return name.startswith("v0")


def replay(
    scenarios: Iterable[Scenario],
    profile: str | Profile,
    *,
    track: Track = Track.OFF,
    soft_dirty: bool = True,
    mmu: Callable[[SparseMemory], Mmu] = ModelMmu,
    pagemap_v2: str = "after_first_clear4",
    progress: Callable[[Scenario], None] | None = None,
    judge: Judge | None = None,
) -> Report:
    """Run scenarios under a profile and compare every step with its recording.

    Parameters
    ----------
    profile : str or Profile
        A name of `linux.PROFILES`, or a profile.
    track : Track
        Raw tables are compared in `off` only: the other ways write other bits.
    soft_dirty : bool
        False: CONFIG_MEM_SOFT_DIRTY=n.
    mmu : callable
        Makes the MMU for a physical memory: the golden one by default.
    pagemap_v2 : str
        For the 3.11 profiles: "never", "after_first_clear4" or "always". The second is "never" for a scenario that
        `keeps_v1`.
    progress : callable or None
        Called before each scenario.
    judge : Judge or None
        What each step is compared with: the recording by default.

    Raises
    ------
    ValueError
        No such profile, or no such layout switch.
    """
    if isinstance(profile, str):
        if profile not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}, not {profile!r}")
        profile = PROFILES[profile]
    if pagemap_v2 not in ("never", "after_first_clear4", "always"):
        raise ValueError(f"pagemap_v2 must be never, after_first_clear4 or always, not {pagemap_v2!r}")
    report = Report()
    booted = False
    v2 = True
    for scenario in scenarios:
        if progress:
            progress(scenario)
        if boots_with_v1(scenario.name):
            v2 = v2 and booted
            booted = True
        else:
            v2, booted = True, False
        fixed = pagemap_v2 == "never" or (boots_with_v1(scenario.name) and keeps_v1(scenario))
        if fixed:
            v2 = False
        elif pagemap_v2 == "always" or profile.pagemap_v2:
            v2 = True
        run = Replay(
            scenario,
            profile,
            track=track,
            soft_dirty=soft_dirty,
            mmu=mmu,
            pagemap_v2=v2,
            pagemap_fixed=fixed,
            raw_tables=track == Track.OFF and not profile.exact,
        )
        _run_one(run, report, judge or Judge())
        v2 = run.kernel.pagemap_v2
    return report


def _run_one(run: Replay, report: Report, judge: Judge) -> None:
    """One scenario into the report."""
    scenario = run.scenario
    report.scenarios += 1
    report.steps += len(scenario.steps)
    judge.begin(run)
    for index in range(len(scenario.steps)):
        try:
            found = judge.step(run, index, run.step())
        except Unsupported as reason:
            report.skipped += len(scenario.steps) - index
            report.skipped_scenarios[scenario.name] = f"step {index}: {reason}"
            return
        if found is None:
            report.skipped += 1
            report.skipped_scenarios.setdefault(scenario.name, f"step {index}: no recorded answer")
        elif not found:
            report.agree += 1
        else:
            report.differ += 1
            report.differing.setdefault(scenario.name, found[0])
            if report.first_difference is None:
                report.first_difference = found[0]
