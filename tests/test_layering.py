"""The arrows of docs/architecture.md, held over the syntax tree: share facts, never decisions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FACTS = {"ptewalk.model.x86", "ptewalk.model.linux"}
SOURCES = sorted(path for part in ("rtl", "model", "cosim") for path in (ROOT / part).rglob("*.py"))
STDLIB_AND = {"rtl": {"amaranth"}, "model": {"numpy"}}
COMPILED = ("bulk_compiled.py", "paging_compiled.py")
"""Files that need numba, which is optional: no other file imports them at its top."""


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, by full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            module = node.module or ""
            for alias in node.names:
                # "from ptewalk.model import x86" names a module.
                below = ROOT / module.removeprefix("ptewalk.").replace(".", "/") / f"{alias.name}.py"
                yield f"{module}.{alias.name}" if module.startswith("ptewalk") and below.is_file() else module


def part_of(path: Path) -> str:
    """The top-level folder of a source file."""
    return path.relative_to(ROOT).parts[0]


def allowed(part: str, module: str) -> bool:
    """May a file of `part` import `module`?"""
    if not module.startswith("ptewalk."):
        return module.split(".")[0] != "ptewalk"
    target = module.split(".")[1]
    if part == "rtl":
        return target == "rtl" or module in FACTS
    if part == "model":
        return target == "model"
    return target in ("rtl", "model", "cosim")


def test_there_are_sources() -> None:
    assert len(SOURCES) > 20


def name_of(path: Path) -> str:
    """A source file, as seen from the root."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_arrows(path: Path) -> None:
    part = part_of(path)
    wrong = [module for module in imports(path) if not allowed(part, module)]
    assert not wrong, f"{name_of(path)} must not import {wrong}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_imports_tests(path: Path) -> None:
    assert not [module for module in imports(path) if module.split(".")[0] == "tests"]


@pytest.mark.parametrize("part", ["rtl", "model"])
def test_third_parties(part: str) -> None:
    import sys

    for path in SOURCES:
        if part_of(path) == part:
            roots = {module.split(".")[0] for module in imports(path)} - {"ptewalk", "__future__"}
            if path.name in COMPILED:
                roots -= {"numba", "llvmlite"}  # llvmlite is a part of numba
            assert roots - set(sys.stdlib_module_names) <= STDLIB_AND[part], path.name


@pytest.mark.parametrize("name", ["x86", "linux"])
def test_facts_decide_nothing(name: str) -> None:
    """No function, no condition, and nothing but the standard library."""
    path = ROOT / "model" / f"{name}.py"
    tree = ast.parse(path.read_text())
    deciding = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.If, ast.IfExp, ast.While, ast.Match, ast.Compare)
    found = [f"line {node.lineno}" for node in ast.walk(tree) if isinstance(node, deciding)]
    assert not found
    assert {module.split(".")[0] for module in imports(path)} <= {"enum", "typing", "dataclasses", "types", "ptewalk"}


# The rooms of model/, lowest first. A file imports from its own row, or from those above it in this list.
ROWS = (
    ("x86", "linux"),
    ("profile", "profiles", "errors", "page_set", "memory"),
    (
        *("paging", "paging_bulk", "paging_compiled", "translation", "mmu"),
        *("pte", "bulk", "bulk_compiled", "engine", "dirty_log", "dirty_bitmap"),
    ),
    ("state",),
    ("mm",),
    ("proc",),
    ("access", "kernel"),
    ("scenario", "api"),
)
ROW_OF = {f"ptewalk.model.{name}": number for number, row in enumerate(ROWS) for name in row}
MODEL = [path for path in SOURCES if part_of(path) == "model"]


def module_of(path: Path) -> str:
    """The full name of a source file's module; a package's is that of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("ptewalk", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def row_of(module: str) -> int | None:
    """The row of a module of model/; None: it is in none, as the root is."""
    return ROW_OF.get(".".join(module.split(".")[:3]))


def too_high(path: Path) -> list[str]:
    """What a file of model/ imports from a higher row."""
    own = row_of(module_of(path))
    assert own is not None, f"{name_of(path)} is in no room: add it to ROWS"
    return [module for module in imports(path) if module.startswith("ptewalk.") and (row_of(module) or 0) > own]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, in groups: what is left when modules without imports go, again and again."""
    left = {module: {other for other in others if other in graph} for module, others in graph.items()}
    while True:
        free = {module for module, others in left.items() if not others}
        if not free:
            return [sorted(left)] if left else []
        left = {module: others - free for module, others in left.items() if module not in free}


def late(path: Path) -> list[str]:
    """Modules that a file imports inside a function."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in top
    ]


@pytest.mark.parametrize("path", [p for p in MODEL if p != ROOT / "model" / "__init__.py"], ids=name_of)
def test_rooms_of_the_model_import_downwards(path: Path) -> None:
    assert not too_high(path), f"{name_of(path)} imports from a room above it"


def test_no_circle_in_the_model() -> None:
    graph = {module_of(path): set(imports(path)) - {module_of(path)} for path in MODEL}
    assert len(graph) > 40
    for name in ("bulk", "paging_bulk"):  # late: numba is optional
        graph[f"ptewalk.model.{name}"] -= {"ptewalk.model.bulk_compiled", "ptewalk.model.paging_compiled"}
    assert circles(graph) == []


@pytest.mark.parametrize("path", MODEL, ids=name_of)
def test_nothing_of_the_model_is_imported_late_or_for_types_only(path: Path) -> None:
    assert "TYPE_CHECKING" not in path.read_text()
    allowed_late = {
        "bulk.py": ["from ptewalk.model import bulk_compiled"] * 4,
        "paging_bulk.py": ["from ptewalk.model import paging_compiled"],
    }
    assert late(path) == allowed_late.get(path.name, [])


def test_the_checks_of_rooms_can_fail(tmp_path: Path) -> None:
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "z"}, "b": set()}) == []
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import ast\nif ast:\n    from ptewalk.model import mm\ndef f():\n    import numpy\n")
    assert late(wrong) == ["from ptewalk.model import mm", "import numpy"]
    assert row_of("ptewalk.model.mm.faults") == 4 and row_of("ptewalk.model.proc.kpage") == 5 and row_of("os") is None


def test_the_check_can_fail(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from ptewalk.model import paging\nfrom ptewalk.model.x86 import EntryBit\n")
    assert [allowed("rtl", module) for module in imports(wrong)] == [False, True]
    assert not allowed("model", "ptewalk.rtl.walker")


# The rooms of cosim/ ----------------------------------------------------------------------------------------------

LAYERS: tuple[tuple[str, ...], ...] = (
    ("base",),
    ("formats",),
    ("simulate", "stimulus", "driver"),
    ("bench", "oracles"),
    ("checks",),
    ("runs", "formal", "fpga", "procfs", "programs"),
    ("speed", "campaigns"),
    ("report",),
    ("cli",),
)
"""Rooms of cosim/, lowest first. A file imports from its own room and from lower layers."""
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
COSIM = [path for path in SOURCES if part_of(path) == "cosim" and len(path.relative_to(ROOT).parts) > 2]


def room_of(path: Path) -> str:
    """The room of a file of cosim/."""
    return path.relative_to(ROOT).parts[1]


def strangers(room: str, modules: Iterator[str]) -> list[str]:
    """Those of the imported `modules` that a file of `room` must not import."""
    rooms = [(module, module.split(".")[2]) for module in modules if module.startswith("ptewalk.cosim.")]
    return [module for module, other in rooms if other != room and LAYER[other] >= LAYER[room]]


@pytest.mark.parametrize("path", COSIM, ids=name_of)
def test_cosim_imports_its_own_room_or_lower_ones(path: Path) -> None:
    wrong = strangers(room_of(path), imports(path))
    assert not wrong, f"{name_of(path)} is in layer {LAYER[room_of(path)]} and must not import {wrong}"


def test_each_room_has_a_layer() -> None:
    rooms = {path.name for path in (ROOT / "cosim").iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= LAYER.keys()
    assert len(COSIM) > 60


def test_the_check_of_rooms_can_fail() -> None:
    modules = ["ptewalk.cosim.runs.gateware", "ptewalk.cosim.oracles.unicorn", "ptewalk.cosim.bench.lane", "numpy"]
    assert strangers("bench", iter(modules)) == modules[:2]
    assert strangers("formal", iter(modules)) == modules[:1]


def test_nothing_is_imported_for_types_alone() -> None:
    """An import under TYPE_CHECKING would hide an arrow."""
    assert not [name_of(path) for path in COSIM if "TYPE_CHECKING" in path.read_text()]
