"""Mutation: random one-token changes of model/ and rtl/, and whether the tests of the part notice them.

    .venv/bin/python tests/mutate.py --draw 300 --seed 1

Number i of a seed is always the same change of the same sources. Each is made in a copy of the tree, in a process that
is forked with numpy, Amaranth and pytest already there, and the tests run until the first that fails; a change that
makes them use far more processor time than they did without it counts as noticed too. Results are appended to a file:
what stands there is not run again. What is not noticed is printed with the reason
that docs/mutation.md gives; equivalent changes count as not noticed too.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import copy
import hashlib
import json
import os
import py_compile
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("model", "rtl")
GOAL = 0.9
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
# The tests of a part, those that find most in the least time first; a file's own tests come before them.
_TESTS = {
    "model": [
        "tests/model/test_found.py",
        "tests/model/test_rules_more.py",
        "tests/model/test_modern_rules.py",
        "tests/model",
        "tests/oracle",
        "tests/test_facts.py",
        "tests/test_docs.py",
    ],
    "rtl": ["tests/rtl", "tests/test_facts.py"],
}
_LATE = {"tests/oracle", "tests/test_docs.py"}


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


def tests_of(file: str) -> list[list[str]]:
    """Which tests to run for a change of `file`, a list for each call of pytest, quickest first."""
    part, stem = Path(file).parts[0], Path(file).stem
    room = Path("tests", *Path(file).parts[:-1])
    own = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests" / part).rglob(f"test_{stem}*.py"))
    if len(room.parts) > 2 and (ROOT / room).is_dir():
        own.append(str(room))
    if room.parts[-1] == "api":
        own += ["tests/model/test_api.py", "tests/test_docs.py"]
    if room.parts[-1] == "proc":
        own += ["tests/model/test_procfs.py"]
    first = [*own, *(name for name in _TESTS[part] if name not in _LATE)]
    last = [name for name in _TESTS[part] if name in _LATE]
    calls = [list(dict.fromkeys(first)), last]
    if Path(file).parts[1] in ("mm", "state", "kernel.py", "access.py", "pte.py", "profiles.py"):
        calls = [first[: first.index("tests/model")], ["tests/oracle/test_recordings.py"], ["tests/model", *last]]
    return [[name for name in call if (ROOT / name).exists()] for call in calls if call]


class Workshop:
    """A copy of the tree in which one change at a time is tried.

    Parameters
    ----------
    folder : Path
        Where the copy goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        for name in listed.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        self.packages = folder / "build" / "packages"
        (self.packages / "ptewalk").mkdir(parents=True)
        for part in ("rtl", "model", "cosim"):
            (self.packages / "ptewalk" / part).symlink_to(folder / part)
            compileall.compile_dir(
                folder / part, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
            )
        self.log = folder / "build" / "log"
        self.changed: tuple[Path, str] | None = None
        """The file that differs from the tree's, and its text there."""

    def start(self, change: Change | None, calls: list[list[str]], seconds: int) -> int:
        """Make the change and start its tests, with so many seconds of processor time; the process."""
        if change is not None:
            path = self.folder / change.file
            self.changed = path, path.read_text()
            path.write_text(change.applied(self.changed[1]))
        process = os.fork()
        if process:
            return process
        try:
            code = self._run(calls, seconds)
        except BaseException:
            code = 3
        os._exit(code)

    def _run(self, calls: list[list[str]], seconds: int) -> int:
        """In the child: 0 when every test passes, 1 when one does not."""
        import pytest

        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        os.chdir(self.folder)
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(self.packages))
        os.environ |= {"PYTHONPATH": str(self.packages), "PYTHONDONTWRITEBYTECODE": "1"}
        for names in calls:
            options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", "."]
            if pytest.main([*options, *names]) != 0:
                return 1
        return 0

    def end(self) -> str:
        """Undo the change; the test that failed."""
        if self.changed is not None:
            path, text = self.changed
            path.write_text(text)
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.M)
        return failed[0] if failed else (said.strip().splitlines() or [""])[-1][:100]


def preload() -> None:
    """What every test needs and no change touches."""
    import amaranth.sim
    import click
    import cocotb
    import numpy
    import pytest
    import rich
    import unicorn

    del amaranth, click, cocotb, numpy, pytest, rich, unicorn
    found = [name for name in sys.modules if name.split(".")[0] == "ptewalk"]
    if found:
        raise RuntimeError(f"{found[0]} is loaded already")


def digest(texts: dict[str, str]) -> str:
    """A name for the sources that the changes are drawn from."""
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]


def baseline(shop: Workshop, part: str) -> int:
    """Seconds of processor time that a part's tests take without a change."""
    print(f"{part}: the tests without a change", flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    example = {"model": "model/mm/faults.py", "rtl": "rtl/walker.py"}[part]
    _, status = os.waitpid(shop.start(None, tests_of(example), 3600), 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status:
        sys.exit(f"mutate: without a change {shop.end()} fails already: mend it first")
    return int(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) + 1


def baselines(shop: Workshop, output: Path, sources_name: str) -> dict[str, int]:
    """`baseline` of each part, kept beside the results for who goes on."""
    path = output.with_suffix(".baseline.json")
    kept = json.loads(path.read_text()) if path.exists() else {}
    if sources_name not in kept:
        kept = {sources_name: {part: baseline(shop, part) for part in PARTS}}
        path.write_text(json.dumps(kept))
    found: dict[str, int] = kept[sources_name]
    return found


@dataclass
class Result:
    """One line of the file."""

    sources: str
    seed: int
    part: str
    number: int
    file: str
    line: int
    old: str
    new: str
    result: str
    by: str
    seconds: float


def read_results(path: Path, sources_name: str, seed: int) -> list[Result]:
    """What stands in the file of these sources and this seed."""
    if not path.exists():
        return []
    found = [Result(**json.loads(line)) for line in path.read_text().splitlines()]
    last = {(r.part, r.number): r for r in found if (r.sources, r.seed) == (sources_name, seed)}
    return list(last.values())


def reasons(text: str) -> dict[tuple[str, str, str], str]:
    """Why a change is not noticed, by file and by what stands there before and after, from docs/mutation.md."""
    rows = re.findall(r"^- `(\S+)`: `(.+?)` to `(.+?)`: (.+?)(?=\n- |\n\n|\Z)", text, re.M | re.S)
    return {(file, old, new): " ".join(reason.split()) for file, old, new, reason in rows}


def report(results: list[Result]) -> bool:
    """Print the rate, and the list of what was not noticed, with reasons; whether the goal is met."""
    known = reasons((ROOT / "docs" / "mutation.md").read_text())
    unnoticed = sorted((r for r in results if r.result == "unnoticed"), key=lambda r: (r.file, r.line))
    for r in unnoticed:
        old, new = " ".join(r.old.split()), " ".join(r.new.split())
        print(f"{r.file}:{r.line}: {old} to {new}: {known.get((r.file, old, new), 'no reason is known')}")
    for part in PARTS:
        of_part = [r for r in results if r.part == part]
        noticed = sum(r.result != "unnoticed" for r in of_part)
        print(f"{part}: {noticed} of {len(of_part)} noticed")
    noticed = len(results) - len(unnoticed)
    print(f"together: {noticed} of {len(results)} noticed, {100 * noticed / max(1, len(results)):.1f} %")
    return noticed >= GOAL * len(results)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draw", type=int, default=300, help="changes, half of them in each part")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "mutation.jsonl")
    parser.add_argument("--again", action="store_true", help="try again what was not noticed")
    parser.add_argument("--report", action="store_true", help="print what is in the file, and run nothing")
    options = parser.parse_args()
    texts = {part: sources(part) for part in PARTS}
    name = digest({file: text for part in PARTS for file, text in texts[part].items()})
    results = read_results(options.output, name, options.seed)
    if options.again:
        results = [result for result in results if result.result != "unnoticed"]
    if options.report:
        return 0 if report(results) else 1
    done = {(r.part, r.number) for r in results}
    todo = []
    for part in PARTS:
        drawn = draw(part, texts[part], options.seed)
        todo += [(number, part, c) for number, c in zip(range(options.draw // 2), drawn, strict=False)]
    todo = [item for item in sorted(todo, key=lambda item: item[:2]) if item[1::-1] not in done]
    print(f"seed {options.seed}, sources {name}: {len(todo)} changes to try, {len(done)} done", flush=True)
    if todo:
        preload()
        shops = [Workshop(ROOT / "build" / "mutate" / str(job)) for job in range(options.jobs)]
        options.output.parent.mkdir(parents=True, exist_ok=True)
        limits = {part: 3 * seconds + 30 for part, seconds in baselines(shops[0], options.output, name).items()}
        results += _try_all(todo, shops, limits, options.output, name, options.seed)
    return 0 if report(results) else 1


def _try_all(
    todo: list[tuple[int, str, Change]], shops: list[Workshop], limits: dict[str, int], path: Path, name: str, seed: int
) -> list[Result]:
    """Each change in a workshop of its own; the results, which are appended to the file one by one."""
    results = []
    waiting, idle = list(reversed(todo)), list(shops)
    running: dict[int, tuple[Workshop, int, str, Change, float]] = {}
    while waiting or running:
        while waiting and idle:
            number, part, change = waiting.pop()
            shop = idle.pop()
            process = shop.start(change, tests_of(change.file), limits[part])
            running[process] = (shop, number, part, change, time.monotonic())
        process, status = os.wait()
        shop, number, part, change, began = running.pop(process)
        by = shop.end()
        outcome = "unnoticed" if status == 0 else "time" if os.WIFSIGNALED(status) else "noticed"
        fields = {key: value for key, value in asdict(change).items() if key not in ("start", "end")}
        seconds = round(time.monotonic() - began, 1)
        result = Result(name, seed, part, number, **fields, result=outcome, by=by if status else "", seconds=seconds)
        results.append(result)
        with path.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        idle.append(shop)
        where = f"{change.file}:{change.line}"
        print(f"{len(results)}/{len(todo)} {outcome} {where} {by if status else ''}", flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
