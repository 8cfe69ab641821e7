"""Who may write what in model/, held over the syntax tree: each invariant has one owner.

state/frames writes what is known of a page, state/tables the entries and where tables are, mm/modify the extent and
the flags of an area. Everybody else calls them, by methods with the kernel's names.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ptewalk.model.profiles import PROFILES
from ptewalk.model.state.frames import Frames
from ptewalk.model.state.machine import MachineState
from ptewalk.model.state.tables import PageTables

MODEL = Path(__file__).resolve().parent.parent / "model"
SOURCES = sorted(MODEL.rglob("*.py"))
COUNTERS = {
    "flags", "maps", "index", "owner", "head", "folios", "partly_mapped", "huge_maps", "pins",
    "waiting", "cached_slot", "freed", "born"
}  # fmt: skip
"""What `Frames` knows of pages."""
AREA = {"start", "end", "flags", "pgoff", "prot"}
"""What mm/modify decides of an area."""
CHANGING = {"add", "append", "clear", "discard", "extend", "fill", "insert", "pop", "popitem", "put", "remove"}
CHANGING |= {"setdefault", "sort", "subtract", "update"}
"""Methods that change what they are called on."""


def functions(tree: ast.Module) -> Iterator[ast.AST]:
    """The functions of a module, those inside others and methods too, and the module itself."""
    yield tree
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def targets(node: ast.AST) -> list[ast.expr]:
    """What a statement writes or deletes, tuples taken apart."""
    found: list[ast.expr] = []
    if isinstance(node, ast.Assign | ast.Delete):
        found = list(node.targets)
    elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For | ast.NamedExpr):
        found = [node.target]
    for target in list(found):
        if isinstance(target, ast.Tuple | ast.List):
            found += target.elts
    return found


def is_counter(node: ast.expr, aliases: set[str]) -> bool:
    """Is the expression one of the tables of `Frames`, by its own name or by another in `aliases`?"""
    if isinstance(node, ast.Name):
        return node.id in aliases
    return isinstance(node, ast.Attribute) and node.attr in COUNTERS


def aliases_of(function: ast.AST) -> set[str]:
    """Names in a function that stand for tables of `Frames`."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            names |= {t.id for t, v in pairs if isinstance(t, ast.Name) and is_counter(v, set())}
    return names


def counter_writes(tree: ast.Module) -> set[int]:
    """Lines that write an element of a table of `Frames`, or change it as a whole."""
    lines = set()
    for function in functions(tree):
        aliases = aliases_of(function)
        for node in ast.walk(function):
            for target in targets(node):
                if isinstance(target, ast.Subscript) and is_counter(target.value, aliases):
                    lines.add(node.lineno)  # type: ignore[attr-defined]
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in CHANGING and is_counter(called.value, aliases):
                lines.add(node.lineno)
            given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "out")]
            by_numpy = isinstance(called, ast.Attribute) and called.attr in {"at", "put", "putmask", "place", "copyto"}
            by_out = any(keyword.arg == "out" for keyword in node.keywords)
            if (by_numpy or by_out) and any(is_counter(value, aliases) for value in given):
                lines.add(node.lineno)
    return lines


def area_writes(tree: ast.Module) -> set[int]:
    """Lines that write a field of an area; an object's own fields, `self.start`, are its own affair."""
    lines = set()
    for node in ast.walk(tree):
        for target in targets(node):
            if isinstance(target, ast.Attribute) and target.attr in AREA and ast.unparse(target.value) != "self":
                lines.add(node.lineno)  # type: ignore[attr-defined]
    return lines


def called_of(tree: ast.Module, module: str) -> dict[str, int]:
    """Functions that are called as `module.name`, with a line of each."""
    return {
        node.func.attr: node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == module
    }


def foreign_privates(tree: ast.Module) -> set[int]:
    """Lines that reach for a private field or method of something else than the class they stand in."""
    own = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for inner in ast.walk(node)
    }  # fmt: skip
    return {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr != "_replace"  # of a named tuple
        and not (id(node) in own and isinstance(node.value, ast.Name))
    }


def memory_writes(tree: ast.Module) -> set[int]:
    """Lines that store a word of physical memory, or have all its words in hand."""
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in {"store", "compare_exchange"} and ast.unparse(node.func.value).endswith("memory"):
                lines.add(node.lineno)
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).endswith("memory.words"):
            lines.add(node.lineno)
        for target in targets(node):
            if isinstance(target, ast.Subscript) and ast.unparse(target.value).endswith("memory.words"):
                lines.add(node.lineno)  # type: ignore[attr-defined]
    return lines


def name_of(path: Path) -> str:
    """A source file, as seen from model/."""
    return str(path.relative_to(MODEL))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_frames_writes_what_is_known_of_a_page(path: Path) -> None:
    lines = counter_writes(tree_of(path))
    if name_of(path) == "state/frames.py":
        assert len(lines) > 30
    else:
        assert not lines, f"model/{name_of(path)}: lines {sorted(lines)} are for a method of state/frames"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_modify_changes_an_area(path: Path) -> None:
    lines = area_writes(tree_of(path))
    if name_of(path) == "mm/modify.py":
        assert len(lines) > 15
    elif name_of(path) == "state/vma.py":  # vm_area_dup
        assert len(lines) == 1
    else:
        assert not lines, f"model/{name_of(path)}: lines {sorted(lines)} are for a function of mm/modify"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nobody_else_merges(path: Path) -> None:
    """A merge that forgets to set the flags of the result cannot be written outside mm/modify."""
    assert "merge" not in called_of(tree_of(path), "modify")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_tables_writes_entries_and_its_indexes(path: Path) -> None:
    """By name: private fields are their class's own, and words of memory are written by those who own the memory."""
    tree = tree_of(path)
    assert not foreign_privates(tree), f"model/{name_of(path)}: private fields of others, {foreign_privates(tree)}"
    if name_of(path) not in {"state/tables.py", "memory.py", "mmu.py", "dirty_log.py", "paging.py"}:
        assert not memory_writes(tree), f"model/{name_of(path)}: writes memory past its owner, {memory_writes(tree)}"


def test_entries_that_are_only_read_cannot_be_written() -> None:
    """What `part` hands out refuses a write; `edit` takes it, and the MMU is told."""
    machine = MachineState(PROFILES["linux-6.1"])
    tables: PageTables = machine.processes[0].mm.tables
    tables.alloc(0x1234, 1)
    machine.stale.take()
    with pytest.raises(ValueError, match="read-only"):
        tables.part(0x1200, 0x1300)[0x34] = 0x67
    with pytest.raises(ValueError, match="read-only"):
        tables.part(0x1200, 0x1300)[:] |= np.uint64(1)
    assert not machine.stale.ranges
    tables.edit(0x1200, 0x1300)[0x34] = 0x67
    assert tables.get(0x1234) == 0x67
    assert machine.stale.take() == [(tables.pcid, 0x1200, 0x1300)]


def test_only_what_allows_less_is_told_to_the_mmu() -> None:
    """Of entries that are written together; one by one it is the same."""
    machine = MachineState(PROFILES["linux-6.1"])
    tables: PageTables = machine.processes[0].mm.tables
    tables.alloc(0x1200, 1)
    old = np.array([0x67, 0x65, 0x65, 0x65, 0x467, 0x64, 0], np.uint64)  # the fifth is write-protected by a userfaultfd
    new = np.array([0x67, 0x67, 0x25, 0x2065, 0x67, 0, 0x67], np.uint64)
    tables.write(0x1200, old)
    machine.stale.take()
    tables.write(0x1200, new)
    assert machine.stale.take() == [(tables.pcid, 0x1202, 0x1204)], "D was lost; another frame"
    tables.write(0x1200, old)
    machine.stale.take()
    for place, entry in enumerate(new.tolist()):
        tables.set(0x1200 + place, entry)
    assert machine.stale.take() == [(tables.pcid, 0x1202, 0x1203), (tables.pcid, 0x1203, 0x1204)]


def test_these_are_the_tables_of_frames() -> None:
    frames = Frames(MachineState(PROFILES["linux-6.1"]).memory)
    plain = {"memory", "next", "zero", "huge_zero", "_spare"}
    of_blocks = {"_private", "_shared_before", "_changed"}
    assert vars(frames).keys() == COUNTERS | plain | of_blocks


WRITES = """
def f(mm, frames, pfns, run):
    frames.flags[run] |= 4
    mm.frames.maps[3] -= 1
    del frames.pins[7]
    frames.owner[1], frames.index[1] = 2, 3
    np.subtract.at(frames.maps, pfns, 1)
    np.add(frames.maps, 1, out=frames.maps)
    frames.freed.extend(pfns)
    flags, other = frames.flags, 3
    flags[5] &= 1
    for frames.head[0] in pfns:
        pass
    slots = frames.cached_slot
    slots.pop(3)
"""
READS = """
def f(mm, frames, vma, run):
    flags = int(frames.flags[3])
    flags |= 4
    maps = frames.maps
    if maps[3] or frames.pins.get(3) or np.any(frames.flags[run]):
        return frames.maps[run].sum()
    pfns[frames.head[3]] = 4
    index = [3]
    index[0] = 4
"""
AREAS = """
def f(mm, vma, other):
    vma.flags |= 8
    vma.start, vma.end = 1, 2
    other.pgoff -= 3
    mm.areas.find(3).prot = 4
class A:
    def g(self, vma):
        self.flags = 3
        flags = vma.flags
        flags |= 4
        modify.merge(vma)
"""
PRIVATES = """
def f(mm):
    mm.tables._huge[2].add(3)
class A:
    def copy(self):
        twin = A()
        twin._rows = self._rows
        twin.tables._tables[1] = {}
    def g(self, mm):
        mm.memory.store(3, 4)
        mm.memory.words[3] = 4
        words = mm.memory.words
        mm.frames.store(3, 0, b"")
"""


def test_these_checks_can_fail() -> None:
    assert counter_writes(ast.parse(WRITES)) == {3, 4, 5, 6, 7, 8, 9, 11, 12, 15}
    assert counter_writes(ast.parse(READS)) == set()
    assert area_writes(ast.parse(AREAS)) == {3, 4, 5, 6}
    assert called_of(ast.parse(AREAS), "modify") == {"merge": 12}
    assert foreign_privates(ast.parse(PRIVATES)) == {3, 8}
    assert memory_writes(ast.parse(PRIVATES)) == {10, 11, 12}
