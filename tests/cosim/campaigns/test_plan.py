"""Plan files: those that come with ptewalk, and one line for each that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.campaigns.kinds import KINDS
from ptewalk.cosim.campaigns.plan import PLANS, read_plan

WALKS = '[[part]]\nname = "w"\nkind = "walks"\ncount = 50_000\n'


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", sorted(path.stem for path in PLANS.glob("*.toml")))
def test_those_that_come_with_ptewalk_can_be_read(name: str) -> None:
    plan = read_plan(name)
    assert plan.name == name and plan.parts
    assert all(set(part.options) == set(KINDS[part.kind].options) for part in plan.parts)


def test_chunks_seeds_and_options(tmp_path: Path) -> None:
    text = f'seed = 9\n{WALKS}[[part]]\nname = "a"\nkind = "accesses"\ncount = 7\nseed = 3\ndesign = "mmu-8walkers"\n'
    plan = read_plan(written(tmp_path, text))
    walks, accesses = plan.parts
    assert [(chunk.seed, chunk.number, chunk.size) for chunk in walks.chunks()] == [
        (9, 0, 20_000),
        (9, 1, 20_000),
        (9, 2, 10_000),
    ]
    assert (accesses.seed, accesses.options, len(accesses.chunks())) == (
        3,
        {"design": "mmu-8walkers", "simulator": "verilator", "lines": "no"},
        1,
    )
    fewer = read_plan(plan.argument, seed=4, share=10, only=("w",))
    assert [(part.name, part.seed, part.count) for part in fewer.parts] == [("w", 4, 5_000)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed =", "no TOML: "),
        ("seed = 1", r"no part: write \[\[part\]\] with name, kind and count"),
        ("seed = -1\n" + WALKS, "seed of the plan is -1: give a whole number from 0 to 9223372036854775807"),
        (WALKS, "seed of the plan is missing: give a whole number"),
        ("speed = 1\n" + WALKS, "the plan has no 'speed': known are part, seed"),
        ('seed = 1\n[[part]]\nkind = "walks"', "part 1 has no name: give it one"),
        ('seed = 1\n[[part]]\nname = "x"\nkind = "w"', "kind of part 'x' is 'w': choose of accesses, bus, command, "),
        ('seed = 1\n[[part]]\nname = "x"\nkind = "walks"', "count of part 'x' is missing: give a whole number from 1"),
        (f"seed = 1\n{WALKS}design = 'mmu'", "part 'w' has no 'design': known are count, kind, lines, name, seed"),
        (f"seed = 1\n{WALKS}{WALKS}", "two parts are named 'w': give each a name of its own"),
        (
            'seed = 1\n[[part]]\nname = "x"\nkind = "accesses"\ncount = 1\ndesign = "no"',
            "part 'x': design is 'no': choose of mmu, ",
        ),
        ('seed = 1\n[[part]]\nname = "x"\nkind = "command"\nrun = []', r"part 'x': run is \[\]: give a list of words"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ToolError, match=rf"mine\.toml: {line}") as caught:
        read_plan(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_files_and_parts_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="nosuch: No such file or directory; .*, or one of lines, nightly, "):
        read_plan("nosuch")
    with pytest.raises(ToolError, match="has no part 'v': choose of w"):
        read_plan(written(tmp_path, f"seed = 1\n{WALKS}"), only=("v",))
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ToolError, match="bytes.toml: is no text; name a plan file"):
        read_plan(str(tmp_path / "bytes.toml"))
