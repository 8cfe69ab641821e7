"""The verbs of a scenario: their arguments, what is refused, and what each does on the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ptewalk.model.errors import Errno
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import ScanCategory
from ptewalk.model.proc import pagemap_scan
from ptewalk.model.state.machine import Process
from ptewalk.model.x86 import PAGE_SHIFT, Access

_PAGE_LIMIT: Final = 1 << 34
"""Pages are counted from the base; beyond this none can be an address of the window."""
_ABI_NUMBER: Final = (1 << 64) - 1
"""Numbers of struct pm_scan_arg are unsigned: -1 is the greatest."""
_KINDS: Final = ("anon", "sanon", "hugetlb", "shugetlb", "hugetlb1g")
_FLAGS: Final = {"mmap": ("populate", "locked", "growsdown"), "mremap": ("MAYMOVE", "FIXED", "DONTUNMAP")}


Answer = tuple[int, list[Any], dict[str, Any] | None]
"""ret, vals, scan."""


class OperationError(Exception):
    """An operation is not what the format says; the text tells the rule."""


class Unsupported(Exception):
    """The model cannot follow this step; the rest of the scenario is skipped."""


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


def check(op: dict[str, Any]) -> None:
    """A step's operation: known verb, arguments there, of the right type, and in range.

    Raises
    ------
    OperationError
        It is not.
    """
    verb = _argument(op, "op", _TEXT)
    _argument(op, "who", _INT)
    if verb not in _VERBS:
        raise OperationError(f"unknown verb {verb!r:.40}")
    for key, types in _VERBS[verb].items():
        if op.get(key) is None and verb in ("uffd_async_open", "unpin"):
            continue
        _argument(op, key, types)
    for key in (*_PAGES, *_SIZES, *_NUMBERS):
        if op.get(key) is not None and (not isinstance(op[key], int) or isinstance(op[key], bool)):
            raise OperationError(f"{key!r} must be a whole number, not {op[key]!r:.40}")
    for key in _PAGES:
        if isinstance(op.get(key), int) and not 0 <= op[key] < _PAGE_LIMIT:
            raise OperationError(f"{key} {op[key]} is out of range (0 to {_PAGE_LIMIT - 1})")
    for key in _SIZES:
        if isinstance(op.get(key), int) and verb != "pagemap_scan":
            if op[key] < 0:
                raise OperationError(f"negative size: {key} is {op[key]}")
            if op[key] >= _PAGE_LIMIT:
                raise OperationError(f"{key} {op[key]} is out of range (0 to {_PAGE_LIMIT - 1})")
    if verb == "pagemap_scan" and not -_PAGE_LIMIT < op["n"] < _PAGE_LIMIT:
        raise OperationError(f"n {op['n']} is out of range")
    if op.get("step") == 0:
        raise OperationError("'step' must be at least 1, not 0")
    if "prot" in op and (op["prot"] != "-" and (op["prot"].strip("rwx") or not op["prot"])):
        raise OperationError(f"'prot' is made of r, w and x, or \"-\", not {op['prot']!r:.40}")
    if verb == "mmap":
        kind = op["kind"]
        if kind not in _KINDS and not (len(kind) == 2 and kind[0] in "ps" and kind[1].isdigit()):
            raise OperationError(f"unknown kind of mapping {kind!r:.40}")
    if verb in _FLAGS:
        for flag in op["flags"]:
            if flag not in _FLAGS[verb]:
                raise OperationError(f"unknown flag {flag!r:.40} of {verb}")
    if verb == "wrpkru" and not (0 <= op["key"] < 16 and 0 <= op["rights"] < 4):
        raise OperationError("wrpkru takes a key of 0 to 15 and rights of 0 to 3")
    if verb == "pkey_mprotect" and not 0 <= op["key"] < 16:
        raise OperationError(f"pkey_mprotect takes a key of 0 to 15, not {op['key']}")
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
                number(op[key], key)
    if verb == "clearraw" and not any(isinstance(op.get(k), str) for k in ("value", "text")):
        raise OperationError("key 'value' is missing")


def _argument(op: dict[str, Any], key: str, types: _Types) -> Any:
    """A required argument of one of the given types."""
    if key not in op:
        raise OperationError(f"key {key!r} is missing")
    value = op[key]
    if not isinstance(value, types) or isinstance(value, bool):
        names = " or ".join(t.__name__ for t in types)
        raise OperationError(f"{key!r} must be {names}, not {value!r:.40}")
    return value


def clear_refs_text(op: dict[str, Any]) -> str:
    """What clear_refs, or clearraw with its escapes undone, writes to the file."""
    text = str(op["value"] if "value" in op else op["text"])
    if op["op"] == "clearraw":
        text = text.replace("\\n", "\n").replace("\\0", "\0").replace("\\t", "\t")
    return text


def number(value: Any, key: str) -> int:
    """An integer, or a string of one (addresses are hexadecimal strings)."""
    if isinstance(value, str):
        try:
            return int(value, 0)
        except ValueError:
            raise OperationError(f"{key!r} must be a number, not {value!r:.40}") from None
    if not isinstance(value, int) or isinstance(value, bool):
        raise OperationError(f"{key!r} must be a number, not {value!r:.40}")
    return value


def run(kernel: Kernel, process: Process, op: dict[str, Any], value: int) -> Answer:
    """One operation: (ret, vals, scan)."""
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
        return _scan(kernel, process, op, at, n)
    return _run_rest(kernel, process, op, at, n, value)


def _run_rest(kernel: Kernel, process: Process, op: dict[str, Any], at: int, n: int, value: int) -> Answer:
    """The verbs that mostly answer 0."""
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
        failed, statuses = kernel.move_pages(process, at, n, op["node"])
        return failed, list(statuses[:64]), None
    simple[verb]()
    return 0, [], None


def _scan(kernel: Kernel, process: Process, op: dict[str, Any], at: int, n: int) -> Answer:
    """pagemap_scan: addresses of the op are pages from the base, sb and eb bytes, start, end and vec absolute."""
    if (op.get("fd") or 0) == -1:
        return -1, [], {"error": True, "errno": "EBADF", "walk_end": None, "regions": []}

    def given(key: str, default: int) -> int:
        found = op.get(key)
        return default if found is None else number(found, key)

    start = given("start", at << PAGE_SHIFT) + given("sb", 0) & _ABI_NUMBER
    end = given("end", (at + n) << PAGE_SHIFT) + given("eb", 0) & _ABI_NUMBER
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
    argument = pagemap_scan.Argument(
        start, end, **{name: given(name, getattr(defaults, name)) & _ABI_NUMBER for name in names}
    )
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
