"""`ptewalk coverage` of the gateware's lines: what was never in force is named, and too little fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.points import SeenPoints, add_toggles
from ptewalk.cosim.campaigns.lines import lines_of, statements_of, unreachable
from ptewalk.cosim.campaigns.plan import read_plan
from ptewalk.cosim.runs.gateware import WalkerLibrary
from ptewalk.rtl.export import flat_top
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.points import RTL, add_points, elaborated

PROGRAM = Path(sys.executable).with_name("ptewalk")
PART = {"name": "w", "kind": "walks", "count": 30 * 2000, "seed": 3, "options": {}}
TEXT = """
class Part:
    def elaborate(self, platform):
        m = Module()
        connect(m, self.a, other.b)
        m.d.comb += [
            one.eq(1),
            (two
                .eq(2)),
        ]
        with m.If(one):
            m.d.sync += three.eq(1)
        if self.wide:
            with m.Elif(two):
                pass
        with m.Switch(four):
            with m.Case(1):
                helper(m)
            with m.Default():
                pass
        with open("nothing"):
            pass
        return m

def helper(m):
    with m.If(five):
        m.d.comb += six.eq(1)
    with m.Else():
        m.d.comb += six.eq(1)
"""


@pytest.fixture(scope="module")
def names() -> list[str]:
    """Every point of an MMU without caches."""
    return list(dict.fromkeys(add_points(elaborated(flat_top(MmuConfig())))[1]))


def kept(folder: Path, *chunks: Mapping[str, int]) -> Path:
    """A campaign's folder with what these chunks had in force."""
    lines = [json.dumps({"plan": [PART], "models": []})]
    lines += [json.dumps([number, {"bins": {}, "points": points}]) for number, points in enumerate(chunks)]
    (folder / "chunks.jsonl").write_text("\n".join([*lines, ""]))
    return folder


def told(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM), "coverage", str(folder), "--only", "lines", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_statements_of_a_text_by_hand() -> None:
    """Their lines, and the function that each stands in; a `with` of Python's own, and a `Switch`, are none."""
    within = "Part.elaborate"
    expected = {
        **{(line, "line"): within for line in (5, 7, 9, 12)},
        **{(line, kind): within for line in (11, 14) for kind in ("taken", "none")},
        **{(line, "taken"): within for line in (17, 19)},
        (26, "taken"): "helper",
        (26, "none"): "helper",
        (28, "taken"): "helper",
        **{(line, "line"): "helper" for line in (27, 29)},
    }
    assert statements_of(TEXT) == expected


ENTRY = {"file": "rtl/a.py", "within": "helper", "line": "with m.Else():", "kind": "taken", "reason": "so"}


def table(path: Path, *entries: Mapping[str, object]) -> Path:
    """A file of what is unreachable."""
    file = path / "unreachable.toml"
    text = (["[[point]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())] for entry in entries)
    file.write_text("\n".join(line for lines in text for line in lines))
    return file


def test_what_is_unreachable_is_found_by_its_text(tmp_path: Path) -> None:
    assert unreachable(table(tmp_path, ENTRY), {"rtl/a.py": TEXT}) == {"rtl/a.py:28 taken": "so"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"line": "with m.Else(): "}, "0 points are taken of"),
        ({"line": "m.d.comb += six.eq(1)", "kind": "line"}, "2 points are line of"),
        ({"within": "Part.elaborate"}, "0 points are"),
        ({"file": "rtl/b.py"}, "0 points are"),
        ({"reason": ""}, "give file, kind, line, reason, within, each a text"),
        ({"why": "so"}, "give file, kind, line, reason, within, each a text"),
    ],
)
def test_an_exclusion_that_names_nothing_is_one_line(tmp_path: Path, change: Mapping[str, str], why: str) -> None:
    with pytest.raises(ToolError, match=why):
        unreachable(table(tmp_path, ENTRY | change), {"rtl/a.py": TEXT})


def test_all_of_the_gatewares_exclusions_name_a_point() -> None:
    assert all(unreachable().values())


def point(text: str, kind: str, file: str = "rtl/fault_unit.py") -> str:
    """Name of the point at the one line of a file that is `text`."""
    lines = [line.strip() for line in (RTL.parent / file).read_text().splitlines()]
    assert lines.count(text) == 1
    return f"{file}:{lines.index(text) + 1} {kind}"


def test_chunks_add_and_what_was_never_in_force_is_named(tmp_path: Path, names: list[str]) -> None:
    """Two chunks, each with every other point; then one with all but one."""
    halves = [{name: int(place % 2 == half) for place, name in enumerate(names)} for half in (0, 1)]
    ours = [one for one in lines_of(kept(tmp_path, *halves)) if one.designed]
    assert {one.file for one in ours} >= {"rtl/walker.py", "rtl/fault_unit.py", "rtl/mmu.py"}
    met = sum(one.lines_met + one.branches_met for one in ours)
    assert met == len(names) - len(unreachable().keys() & set(names))
    assert not {name for one in ours for name, _ in one.gaps} & set(names)
    gone = point("with m.If(answered & ~accepted):", "taken")
    (unit,) = (
        one for one in lines_of(kept(tmp_path, dict.fromkeys(names, 1) | {gone: 0})) if one.file == "rtl/fault_unit.py"
    )
    assert (gone, "with m.If(answered & ~accepted):") in unit.gaps and unit.branches - unit.branches_met == 1


def test_a_statement_that_no_design_has_is_a_gap(tmp_path: Path, names: list[str]) -> None:
    """The registers that proofs watch are in no design of a campaign."""
    found = {name: text for one in lines_of(kept(tmp_path, dict.fromkeys(names, 1))) for name, text in one.gaps}
    excluded = unreachable()
    text = "m.d.comb += self.o_registers.queued.eq(queue.level)"
    name = point(text, "line")
    assert name in excluded or found[name] == text


def test_what_is_excluded_and_in_force_is_told(
    tmp_path: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = point("with m.If(answered & ~accepted):", "taken")
    monkeypatch.setattr("ptewalk.cosim.campaigns.lines.unreachable", lambda texts: {name: "not so"})
    (unit,) = (one for one in lines_of(kept(tmp_path, dict.fromkeys(names, 1))) if one.file == "rtl/fault_unit.py")
    assert (unit.surprises, dict(unit.excluded)) == ([name], {"not so": 1})


def test_toggles_of_chunks_add(tmp_path: Path, names: list[str]) -> None:
    """The widest of a name counts; what stayed still is named by its bits, highest first."""
    chunks = [{"rtl/mmu.py:80 marks": [8, "05"]}, {"rtl/mmu.py:80 marks": [12, "806"], "rtl/mmu.py:83 x": [1, "1"]}]
    lines = [json.dumps({"plan": [PART], "models": []})]
    told = {"bins": {}, "points": dict.fromkeys(names, 1)}
    lines += [json.dumps([number, told | {"toggles": one}]) for number, one in enumerate(chunks)]
    (tmp_path / "chunks.jsonl").write_text("\n".join([*lines, ""]))
    (file,) = (one for one in lines_of(tmp_path) if one.file == "rtl/mmu.py")
    assert (file.bits, file.toggled, file.still) == (13, 5, [("rtl/mmu.py:80 marks", "10:3")])
    whole: dict[str, tuple[int, int]] = {}
    add_toggles(whole, {"a": (2, 1)})
    add_toggles(whole, {"a": (1, 1), "b": (70, 1 << 69)})
    assert whole == {"a": (2, 1), "b": (70, 1 << 69)}


def test_points_of_other_gateware_are_refused(tmp_path: Path) -> None:
    for name in ("rtl/walker.py:1 line", "rtl/nosuch.py:7 taken"):
        with pytest.raises(ToolError, match="is no point of this gateware; it is of another version: run it anew"):
            lines_of(kept(tmp_path, {name: 1}))


@pytest.mark.thorough
def test_too_little_is_exit_code_1_and_names_the_line(tmp_path: Path, names: list[str]) -> None:
    gone = point("with m.If(answered & ~accepted):", "taken")
    met = {name: int(name not in unreachable()) for name in names}
    folder = kept(tmp_path, met | {gone: 0})
    done = told(folder, "--least", "50")
    assert (done.returncode, done.stderr) == (0, "")
    done = told(folder)
    assert done.returncode == 1 and f"never in force: {gone}: with m.If(answered & ~accepted):" in done.stdout
    assert "less than 100 %" in done.stdout and "in no design of this campaign: " in done.stdout
    rows = json.loads(told(folder, "--json").stdout)["lines"]
    (unit,) = (row for row in rows if row["file"] == "rtl/fault_unit.py")
    assert {"point": gone, "text": "with m.If(answered & ~accepted):"} in unit["gaps"]
    done = told(kept(tmp_path, {}))
    assert done.returncode == 2 and 'have one with lines = "yes" in its plan' in done.stderr


def test_lines_are_counted_on_verilator_alone(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="lines are counted on Verilator, not on cxxrtl"):
        WalkerLibrary.make(simulator="cxxrtl", covered=True)


def test_the_plan_that_comes_with_it_counts_lines_in_every_part() -> None:
    assert {part.options["lines"] for part in read_plan("lines").parts} == {"yes"}


@pytest.mark.slow
def test_the_gateware_answers_the_same_and_tells_its_points() -> None:
    """Beside the model that tells none, walk by walk; one walk has less in force than many, none anything."""
    covered, plain = WalkerLibrary.make(covered=True), WalkerLibrary.make()
    points = SeenPoints(covered.model.library)
    points.clear()
    assert sum(points.told().values()) == 0 and not any(bits for _, bits in points.toggles().values())
    found = []
    for walks in (1, 4000):
        points.clear()
        again = [library.randomised(walks, 7, "") for library in (covered, plain)]
        for one in again:
            del one["seconds"], one["rate"]["seconds"]
        assert again[0] == again[1]
        assert again[0]["mismatches"] == 0 and again[0]["comparisons"] >= walks
        found.append({name for name, seen in points.told().items() if seen})
    assert len(found[0]) < len(found[1]) > 0.95 * len(points.told()) and len(found[1] - found[0]) > 10
    assert point("m.d.sync += r.in_flight.eq(0)", "line") in found[0]
    toggles = {name.partition(" ")[2]: told for name, told in points.toggles().items() if "rtl/mmu.py" in name}
    width, bits = toggles["marks"]  # a counter of some hundreds
    assert width == 32 and bits & 0x1F == 0x1F and bits < 1 << 12
