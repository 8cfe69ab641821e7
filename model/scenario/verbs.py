"""The verbs of a scenario, one table: what each takes, and what it does on the model.

The reader, the model's runner, the recorder's encoder, the random scenarios and docs/scenario-format.md go by it. What
holds for one operation alone is told by `arguments`, what holds for a sequence of them by `Lives`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ptewalk.model.errors import Errno
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import ADVICE, SCAN_ARGUMENT_BYTES, SCAN_RETURN_MASK, WINDOW_PAGES, ScanCategory
from ptewalk.model.proc import pagemap_scan
from ptewalk.model.scenario.arguments import (
    MAPPING_KINDS,
    Argument,
    Choice,
    FileNumber,
    Flags,
    OperationError,
    Protection,
    Text,
    Whole,
    Word,
)
from ptewalk.model.state.machine import Process
from ptewalk.model.x86 import PAGE_SHIFT, Access

PROCESSES: Final = 16
"""Processes are numbered 0 to 15; process 0 is there from the start."""
PAGE_LIMIT: Final = 1 << 34
"""Pages are counted from the base; an operation names pages below this."""
MAPPED_PAGES: Final = 1310720
"""Pages of one mapping, 5 GiB: the recorder reads every page's pagemap entry after each step."""
ACCESSES: Final = 262144
"""Accesses of one step: the recorder has room for so many answers."""
MOVED_PAGES: Final = 65536
"""Pages of one move_pages."""
TEXT_BYTES: Final = 63
"""Bytes written to clear_refs."""
STATUSES: Final = 64
"""Answers of move_pages that are recorded."""
_WORD: Final = (1 << 64) - 1


class Unsupported(Exception):
    """The model cannot follow this step; the rest of the scenario is skipped."""


@dataclass
class Answer:
    """What an operation answers.

    Attributes
    ----------
    ret : int
    vals : list
    scan : dict or None
        Of pagemap_scan.
    errno : str or None
        Of a pagemap_scan that failed after it had written something.
    """

    ret: int = 0
    vals: list[Any] = field(default_factory=list)
    scan: dict[str, Any] | None = None
    errno: str | None = None


@dataclass(slots=True)
class Call:
    """One operation on the model.

    Attributes
    ----------
    kernel : Kernel
    process : Process
        The one that acts.
    given : dict
        Every argument of the verb.
    value : int
        The byte that a store of this step writes.
    """

    kernel: Kernel
    process: Process
    given: Mapping[str, Any]
    value: int

    @property
    def at(self) -> int:
        """Page number of `page`."""
        return self.kernel.base + int(self.given["page"])

    @property
    def n(self) -> int:
        """Argument n."""
        return int(self.given["n"])

    @property
    def touched(self) -> range:
        """Every step-th of the pages."""
        return range(self.at, self.at + self.n, self.given["step"])

    @property
    def file(self) -> str:
        """The file's name in the kernel."""
        return str(self.given["file"])


@dataclass(frozen=True)
class Verb:
    """One verb.

    Attributes
    ----------
    run : callable
        Does it on the model; what is no `Answer` stands for 0.
    arguments : tuple of Argument
    rule : callable or None
        What must hold for several arguments together: given them, the text of what does not hold, or None.
    """

    run: Callable[[Call], object]
    arguments: tuple[Argument, ...] = ()
    rule: Callable[[Mapping[str, Any]], str | None] | None = None


def arguments(op: Mapping[str, Any], *, strict: bool = True) -> dict[str, Any]:
    """Every argument of an operation as its verb uses it, with `who` and `op`, defaults filled in.

    Parameters
    ----------
    strict : bool
        Also refuse arguments of other verbs. Recordings may have some; a name that no verb knows is refused always.

    Raises
    ------
    OperationError
        An unknown verb, or an argument that is missing, unknown or out of range.
    """
    name = op.get("op")
    if not isinstance(name, str) or name not in VERBS:
        raise OperationError(f"unknown verb {name!r:.40}: choose one of {', '.join(VERBS)}")
    verb = VERBS[name]
    given: dict[str, Any] = {"op": name, "who": WHO.of(op)}
    for argument in verb.arguments:
        given[argument.name] = argument.of(op)
    _refuse_unknown(op, verb, strict)
    if verb.rule is not None:
        wrong = verb.rule(given)
        if wrong is not None:
            raise OperationError(wrong)
    return given


def _names(verb: Verb) -> set[str]:
    """The keys that an operation of a verb may have."""
    return {WHO.name, "op", *(name for a in verb.arguments for name in (a.name, a.also) if name is not None)}


def _refuse_unknown(op: Mapping[str, Any], verb: Verb, strict: bool) -> None:
    known = _names(verb)
    strange = [key for key, value in op.items() if key not in known and value is not None]
    if strange and not strict:
        others = set().union(*map(_names, VERBS.values()))
        strange = [key for key in strange if key not in others]
    if strange:
        takes = ", ".join(argument.name for argument in verb.arguments) or "no argument"
        raise OperationError(f"{op['op']} has no argument {strange[0]!r:.40}: it takes {takes}")


class Lives:
    """Which processes live, as far as the operations tell: what acts, or is acted upon, must."""

    def __init__(self, live: Iterable[int] = (0,)) -> None:
        self.live = set(live)

    def check(self, op: Mapping[str, Any]) -> None:
        """Refuse an operation of, or on, a process that does not live, and the fork of one that does.

        Raises
        ------
        OperationError
            It is one.
        """
        for name in ("who", "target"):
            who = op.get(name)
            if who is not None and who not in self.live:
                raise OperationError(f"{op['op']}: process {who} ({name}) does not live")
        if op["op"] == "fork" and op["child"] in self.live:
            raise OperationError(f"fork: process {op['child']} (child) lives already")

    def follow(self, op: Mapping[str, Any]) -> None:
        """What lives after an operation that succeeded."""
        if op["op"] == "fork":
            self.live.add(op["child"])
        elif op["op"] == "exit":
            self.live.remove(op["who"])


# What the verbs do ----------------------------------------------------------------------------------------------------


def _mmap(call: Call) -> Answer:
    kernel, given = call.kernel, call.given
    new = kernel.mmap(call.process, call.at, call.n, given["prot"], given["kind"], given["file_page"], given["flags"])
    return Answer(new - kernel.base)


def _mremap(call: Call) -> Answer:
    kernel, given = call.kernel, call.given
    new_at = kernel.base + given["new_page"]
    new = kernel.mremap(call.process, call.at, call.n, given["new_n"], given["flags"], new_at) - kernel.base
    wrong = outside_window("mremap", new, given["new_n"])
    if wrong is not None:
        raise OperationError(wrong)
    return Answer(new)


def _touch(access: Access) -> Callable[[Call], Answer]:
    return lambda call: Answer(0, call.kernel.touch_pages(call.process, call.touched, access, call.value))


def _mem(*, write: bool) -> Callable[[Call], Answer]:
    return lambda call: Answer(0, call.kernel.mem_access(call.process, call.touched, write=write, value=call.value))


def _read_into(call: Call) -> Answer:
    if not call.kernel.copy_to_user(call.process, call.at, 16, 0):
        raise Errno("EFAULT")
    return Answer(1)


def _clear_refs(call: Call) -> Answer:
    target = call.given["target"]
    target = call.process.who if target is None else target
    return Answer(call.kernel.clear_refs(target, call.given["value"], call.process))


def _setuid(call: Call) -> Answer:
    call.kernel.setuid(call.process)
    return Answer(0, ["pm=1"])


def _file_write(call: Call) -> Answer:
    call.kernel.file_write(call.file, call.given["file_page"], call.value)
    return Answer(1, [call.value])


def _file_read(call: Call) -> Answer:
    found = call.kernel.file_read(call.file, call.given["file_page"])
    return Answer(0, [0]) if found is None else Answer(1, [found])


def _unpin(call: Call) -> None:
    page = call.given["page"]
    call.kernel.unpin(call.process, None if page is None else call.at)


def _move_pages(call: Call) -> Answer:
    failed, statuses = call.kernel.move_pages(call.process, call.at, call.n, call.given["node"])
    return Answer(failed, list(statuses[:STATUSES]))


def scan_bounds(given: Mapping[str, Any], base: int) -> tuple[int, int]:
    """First byte and end of a pagemap_scan, by the byte address of page 0."""
    start, end = given["start"], given["end"]
    start = base + (given["page"] << PAGE_SHIFT) if start is None else start
    end = base + (given["page"] + given["n"] << PAGE_SHIFT) if end is None else end
    return start + given["sb"] & _WORD, end + given["eb"] & _WORD


def _scan(call: Call) -> Answer:
    """Addresses are pages from the base, sb and eb bytes, start, end and vec absolute."""
    kernel, given = call.kernel, call.given
    nothing: dict[str, Any] = {"walk_end": None, "regions": []}
    if given["fd"] == -1:
        return Answer(-1, [], nothing, "EBADF")
    numbers = {name: given[name] for name in SCAN_NUMBERS}
    if given["vec"] is not None:
        numbers["vec"] = given["vec"]
    start, end = scan_bounds(given, kernel.base << PAGE_SHIFT)
    try:
        answer = kernel.pagemap_scan(call.process, pagemap_scan.Argument(start, end, **numbers))
    except Errno as error:
        return Answer(-1, [], nothing, error.name)
    walk_end = None if answer.walk_end is None else (answer.walk_end >> PAGE_SHIFT) - kernel.base
    regions = [
        [first - kernel.base, count, [c.name for c in ScanCategory if categories & c]]
        for first, count, categories in answer.regions
    ]
    found: dict[str, Any] = {"walk_end": walk_end, "regions": regions}
    return Answer(-1, [], found, answer.error) if answer.error else Answer(len(regions), [], found)


def _in_window(page: str, n: str) -> Callable[[Mapping[str, Any]], str | None]:
    """The rule that a new mapping lies in the window."""

    def rule(given: Mapping[str, Any]) -> str | None:
        first, count = given[page], given[n]
        if count > MAPPED_PAGES:
            return f"{n!r} must be at most {MAPPED_PAGES} pages (5 GiB) of one mapping, not {count}"
        if first + count > WINDOW_PAGES:
            return f"a mapping must end by page {WINDOW_PAGES} (512 GiB), not at {first + count}"
        return None

    return rule


def outside_window(verb: str, page: int, n: int) -> str | None:
    """Why a scenario cannot go on: a call put `n` pages outside the window; None: they lie in it."""
    if page >= 0 and page + n <= WINDOW_PAGES:
        return None
    return f"{verb} put its pages where the kernel chose, outside the window: give FIXED, or a new_page that is free"


def _few_accesses(given: Mapping[str, Any]) -> str | None:
    count = -(-given["n"] // given.get("step", 1))
    return None if count <= ACCESSES else f"a step must have at most {ACCESSES} accesses, not {count}"


# The table ------------------------------------------------------------------------------------------------------------

_PAGE_NUMBER: Final = Whole(0, PAGE_LIMIT - 1)
_PROCESS: Final = Whole(0, PROCESSES - 1)
WHO: Final = Argument("who", _PROCESS)
"""The process that acts: an argument of every verb."""
_PAGE: Final = Argument("page", _PAGE_NUMBER)
_N: Final = Argument("n", _PAGE_NUMBER)
_RANGE: Final = (_PAGE, _N)
_TOUCHED: Final = (*_RANGE, Argument("step", Whole(1, PAGE_LIMIT - 1), 1))
_PROT: Final = Argument("prot", Protection())
_FILE: Final = Argument("file", FileNumber())
_FILE_PAGE: Final = Argument("file_page", _PAGE_NUMBER)
_TARGET: Final = Argument("target", _PROCESS, None)
_KEY: Final = Argument("key", Whole(0, 15))
SCAN_NUMBERS: Final = {
    "size": SCAN_ARGUMENT_BYTES,
    "flags": 0,
    "vec_len": 4096,
    "max_pages": 0,
    "category_inverted": 0,
    "category_mask": 0,
    "category_anyof_mask": 0,
    "return_mask": SCAN_RETURN_MASK,
}
"""Numbers of struct pm_scan_arg that are given as they are, with what they are else."""

VERBS: Final[Mapping[str, Verb]] = {
    "mmap": Verb(
        _mmap,
        (
            *(*_RANGE, _PROT, Argument("kind", Choice(MAPPING_KINDS)), Argument("file_page", _PAGE_NUMBER, 0)),
            Argument("flags", Flags(("populate", "locked", "growsdown", "noreserve")), ()),
        ),
        _in_window("page", "n"),
    ),
    "munmap": Verb(lambda c: c.kernel.munmap(c.process, c.at, c.n), _RANGE),
    "mprotect": Verb(lambda c: c.kernel.mprotect(c.process, c.at, c.n, c.given["prot"]), (*_RANGE, _PROT)),
    "pkey_mprotect": Verb(
        lambda c: c.kernel.mprotect(c.process, c.at, c.n, c.given["prot"], c.given["key"]), (*_RANGE, _PROT, _KEY)
    ),
    "wrpkru": Verb(
        lambda c: c.kernel.wrpkru(c.process, c.given["key"], c.given["rights"]),
        (_KEY, Argument("rights", Whole(0, 3))),
    ),
    "mremap": Verb(
        _mremap,
        (
            *(*_RANGE, Argument("new_n", _PAGE_NUMBER), Argument("new_page", _PAGE_NUMBER, 0)),
            Argument("flags", Flags(("MAYMOVE", "FIXED", "DONTUNMAP")), ()),
        ),
        _in_window("new_page", "new_n"),
    ),
    "madvise": Verb(
        lambda c: c.kernel.madvise(c.process, c.at, c.n, c.given["advice"]),
        (*_RANGE, Argument("advice", Choice(tuple(ADVICE)))),
    ),
    "mlock": Verb(lambda c: c.kernel.mlock(c.process, c.at, c.n, lock=True), _RANGE),
    "munlock": Verb(lambda c: c.kernel.mlock(c.process, c.at, c.n, lock=False), _RANGE),
    "write": Verb(_touch(Access.WRITE), _TOUCHED, _few_accesses),
    "read": Verb(_touch(Access.READ), _TOUCHED, _few_accesses),
    "mem_write": Verb(_mem(write=True), _TOUCHED, _few_accesses),
    "mem_read": Verb(_mem(write=False), _TOUCHED, _few_accesses),
    "syscall_read_into": Verb(_read_into, (_PAGE,)),
    "same": Verb(lambda c: c.kernel.fill(c.process, c.at, c.n), _RANGE, _few_accesses),
    "file_write": Verb(_file_write, (_FILE, _FILE_PAGE)),
    "file_read": Verb(_file_read, (_FILE, _FILE_PAGE)),
    "ftruncate": Verb(lambda c: c.kernel.ftruncate(c.file, c.n), (_FILE, _N)),
    "sync": Verb(lambda c: c.kernel.sync(c.file), (_FILE,)),
    "remapfile": Verb(
        lambda c: c.kernel.remap_file_pages(c.process, c.at, c.n, c.given["file_page"]), (*_RANGE, _FILE_PAGE)
    ),
    "clear_refs": Verb(_clear_refs, (Argument("value", Text(TEXT_BYTES)), _TARGET)),
    "clearraw": Verb(_clear_refs, (Argument("value", Text(TEXT_BYTES, escaped=True), also="text"), _TARGET)),
    "pagemap_scan": Verb(
        _scan,
        (
            *(_PAGE, Argument("n", Whole(-PAGE_LIMIT + 1, PAGE_LIMIT - 1))),
            *(Argument(name, Word(), default) for name, default in SCAN_NUMBERS.items()),
            *(Argument(name, Word(), None) for name in ("start", "end", "vec")),
            *(Argument(name, Word(signed=True), 0) for name in ("sb", "eb", "fd")),
        ),
    ),
    "fork": Verb(lambda c: c.kernel.fork(c.process, c.given["child"]), (Argument("child", Whole(1, PROCESSES - 1)),)),
    "exit": Verb(lambda c: c.kernel.exit(c.process)),
    "setuid": Verb(_setuid),
    "uffd_reg": Verb(lambda c: c.kernel.uffd_register(c.process, c.at, c.n), _RANGE),
    "uffd_wp": Verb(lambda c: c.kernel.uffd_writeprotect(c.process, c.at, c.n, protect=True), _RANGE),
    "uffd_unwp": Verb(lambda c: c.kernel.uffd_writeprotect(c.process, c.at, c.n, protect=False), _RANGE),
    "uffd_async_open": Verb(lambda c: c.kernel.uffd_open(c.process, asynchronous=True)),
    "uffd_async_reg": Verb(lambda c: c.kernel.uffd_register(c.process, c.at, c.n, asynchronous=True), _RANGE),
    "uffd_async_unreg": Verb(lambda c: c.kernel.uffd_unregister(c.process, c.at, c.n), _RANGE),
    "uffd_async_wp": Verb(lambda c: c.kernel.uffd_writeprotect(c.process, c.at, c.n, protect=True), _RANGE),
    "uffd_async_unwp": Verb(lambda c: c.kernel.uffd_writeprotect(c.process, c.at, c.n, protect=False), _RANGE),
    "pin": Verb(lambda c: c.kernel.pin(c.process, c.at, c.n), _RANGE),
    "unpin": Verb(_unpin, (Argument("page", _PAGE_NUMBER, None), Argument("n", _PAGE_NUMBER, None))),
    "move_pages": Verb(_move_pages, (_PAGE, Argument("n", Whole(0, MOVED_PAGES)), Argument("node", Choice((0, 1))))),
    "ksm_scan": Verb(
        lambda c: c.kernel.ksm_scan(use_zero_pages=bool(c.given["use_zero_pages"])),
        (Argument("use_zero_pages", Choice((0, 1)), 0),),
    ),
    "ksm": Verb(lambda c: c.kernel.ksm_scan()),
    "swapoff": Verb(lambda c: c.kernel.swapoff()),
    "swapon": Verb(lambda c: None),
}
"""Name to verb."""


def run(kernel: Kernel, given: Mapping[str, Any], value: int) -> Answer:
    """One operation on the model.

    Parameters
    ----------
    given : mapping
        What `arguments` makes of it.
    value : int
        The byte that a store writes.

    Raises
    ------
    Errno
        The system call fails.
    OperationError
        A process that does not live, or a new one that does.
    """
    Lives(kernel.processes).check(given)
    answer = VERBS[given["op"]].run(Call(kernel, kernel.processes[given["who"]], given, value))
    return answer if isinstance(answer, Answer) else Answer()
