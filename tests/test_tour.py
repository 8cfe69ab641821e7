"""docs/tour.md: its pictures are what would be drawn today, and what it says of them is so."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from ptewalk.rtl import walker
from ptewalk.rtl.walker import WalkState

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "tour.md").read_text()


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    """docs/site/pictures.py."""
    found = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "site" / "pictures.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def ways_of_source(alone: bool) -> set[tuple[WalkState, WalkState]]:
    """From and to which states the source goes: each `r.state.eq(...)` below a `m.Case(...)` of a state.

    `alone`: without what is below `if self._starts`, which a walker alone does not have.
    """
    ways = set()

    def state(call: ast.Call) -> WalkState:
        return WalkState[ast.unparse(call.args[0]).removeprefix("WalkState.")]

    def search(node: ast.AST, begin: WalkState | None) -> None:
        if alone and isinstance(node, ast.If) and ast.unparse(node.test) == "self._starts":
            for other in node.orelse:
                search(other, begin)
            return
        if isinstance(node, ast.With) and ast.unparse(node.items[0]).startswith("m.Case(WalkState."):
            head = node.items[0].context_expr
            assert isinstance(head, ast.Call)
            begin = state(head)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "r.state.eq":
            assert begin is not None
            ways.add((begin, state(node)))
        for below in ast.iter_child_nodes(node):
            search(below, begin)

    search(ast.parse(inspect.getsource(walker)), None)
    return ways


@pytest.mark.thorough
def test_the_pictures_are_what_is_drawn_today(pictures: ModuleType) -> None:
    assert {path.name for path in pictures.FOLDER.iterdir()} == set(pictures.PICTURES)
    assert set(re.findall(r"\]\(pictures/([\w.]+)\)", PAGE)) == set(pictures.PICTURES)
    old = [name for name in pictures.PICTURES if pictures.drawn(name) != (pictures.FOLDER / name).read_text()]
    assert not old, f"draw them anew: python docs/site/pictures.py ({', '.join(old)})"


def test_the_walk_takes_the_cycles_that_the_page_says(pictures: ModuleType) -> None:
    words = dict(pictures.TABLES)
    cycles = pictures.walked(words, [pictures.LINEAR])
    (asked,) = (place for place, cycle in enumerate(cycles) if all(cycle["requester.requests"][:2]))
    (answered,) = (place for place, cycle in enumerate(cycles) if all(cycle["requester.responses"][:2]))
    latency = pictures.LATENCY
    assert answered - asked == 4 * latency + 2 + latency + 1 == 13
    assert cycles[answered]["requester.responses"][2] == 0x5678 and words[0x4008] == 0x5867


@pytest.mark.thorough
def test_the_ways_are_all_that_there_are(pictures: ModuleType) -> None:
    ways = ways_of_source(alone=True)
    assert len(ways) == 9 and "the nine ways" in PAGE
    assert set(pictures.ways(pictures.some_walks())) == ways
    more = ways_of_source(alone=False) - ways
    assert more == {(WalkState.JUDGE, WalkState.READ), (WalkState.SWAPPED, WalkState.IDLE)}
    assert "from JUDGE to READ" in PAGE and "from SWAPPED to IDLE" in PAGE


def test_the_table_of_states_is_the_enumerations() -> None:
    body = ast.parse(inspect.getsource(WalkState)).body[0]
    assert isinstance(body, ast.ClassDef)
    told = [ast.unparse(line.value)[1:-1] for line in body.body[1:] if isinstance(line, ast.Expr)]
    rows = re.findall(r"^\| `([A-Z]+)` \| (.*) \|$", PAGE, re.M)
    assert rows == [(state.name, text) for state, text in zip(WalkState, told, strict=True)]
