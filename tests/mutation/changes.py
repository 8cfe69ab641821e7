"""Every one-token change of a source file, in an order that a seed draws."""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = ("model", "rtl")
_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATOR: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}


@dataclass(frozen=True)
class Change:
    """One change: the file, the span of characters, and what stands there before and after."""

    file: str
    line: int
    start: int
    end: int
    old: str
    new: str

    def applied(self, text: str) -> str:
        """The file's text with the change."""
        return text[: self.start] + self.new + text[self.end :]


class _Finder(ast.NodeVisitor):
    """Every change of one file. Annotations, documentation, imports and assertions stay as they are."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.lines = [0]
        for line in text.encode().splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.raw = text.encode()
        self.found: list[Change] = []
        self.visit(ast.parse(text))

    def _span(self, node: ast.AST) -> tuple[int, int]:
        place = [
            len(self.raw[: self.lines[line - 1] + column].decode())
            for line, column in ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))  # type: ignore[attr-defined]
        ]
        return place[0], place[1]

    def _add(self, node: ast.AST, new: str) -> None:
        start, end = self._span(node)
        self.found.append(Change(self.file, node.lineno, start, end, self.text[start:end], new))  # type: ignore[attr-defined]

    def _replaced(self, node: ast.expr, change: Callable[[ast.expr], None]) -> None:
        other = copy.deepcopy(node)
        change(other)
        self._add(node, f"({ast.unparse(other)})")

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_arguments(self, node: ast.arguments) -> None:
        for default in (*node.defaults, *node.kw_defaults):
            if default is not None:
                self.visit(default)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.visit(node.args)
        for part in node.body:
            self.visit(part)

    visit_FunctionDef = _function
    visit_AsyncFunctionDef = _function

    def visit_Import(self, node: ast.Import) -> None:
        pass

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        pass

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add(node, "pass")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call):
            self._add(node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._add(node, "pass")
        new = _OPERATOR.get(type(node.op))
        if new is not None:
            other = copy.deepcopy(node)
            other.op = new()
            self._add(node, ast.unparse(other))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._add(node, "pass")
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        self._add(node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add(node, "break")

    def _tested(self, node: ast.If | ast.IfExp | ast.While) -> None:
        start, end = self._span(node.test)
        self._add(node.test, f"(not ({self.text[start:end]}))")
        self.generic_visit(node)

    visit_If = _tested
    visit_IfExp = _tested
    visit_While = _tested

    def visit_Compare(self, node: ast.Compare) -> None:
        for place, op in enumerate(node.ops):
            new = _COMPARE.get(type(op))
            if new is not None:

                def change(other: ast.expr, place: int = place, new: type[ast.cmpop] = new) -> None:
                    assert isinstance(other, ast.Compare)
                    other.ops[place] = new()

                self._replaced(node, change)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        def change(other: ast.expr) -> None:
            assert isinstance(other, ast.BoolOp)
            other.op = ast.Or() if isinstance(other.op, ast.And) else ast.And()

        self._replaced(node, change)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        new = _OPERATOR.get(type(node.op))
        if new is not None and not isinstance(node.left, ast.JoinedStr | ast.List):

            def change(other: ast.expr) -> None:
                assert isinstance(other, ast.BinOp)
                other.op = new()

            self._replaced(node, change)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        start, end = self._span(node.operand)
        self._add(node, self.text[start:end])
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add(node, str(not node.value))
        elif isinstance(node.value, int):
            self._add(node, str(node.value + 1))
            if node.value:
                self._add(node, str(node.value - 1))

    def visit_Call(self, node: ast.Call) -> None:
        plain = [isinstance(argument, ast.Name | ast.Attribute) for argument in node.args]
        for place in range(len(plain) - 1):
            if plain[place] and plain[place + 1]:

                def change(other: ast.expr, place: int = place) -> None:
                    assert isinstance(other, ast.Call)
                    arguments = other.args
                    arguments[place], arguments[place + 1] = arguments[place + 1], arguments[place]

                self._replaced(node, change)
        self.generic_visit(node)


def is_program(change: Change, text: str) -> bool:
    """Does the file stay a program?"""
    try:
        compile(change.applied(text), change.file, "exec")
    except SyntaxError:
        return False
    return True


def sources(part: str) -> dict[str, str]:
    """The files of a part, by name from the root."""
    paths = sorted((ROOT / part).rglob("*.py"))
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths if path.name != "__init__.py"}


def draw(part: str, texts: dict[str, str], seed: int) -> Iterator[Change]:
    """The changes of a part, each once, in the seed's order."""
    everything = [change for file, text in texts.items() for change in _Finder(file, text).found]
    random.Random(f"{seed} {part}").shuffle(everything)
    for change in everything:
        if change.old != change.new and is_program(change, texts[change.file]):
            yield change


def digest(texts: dict[str, str]) -> str:
    """A name for the sources that the changes are drawn from."""
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]
