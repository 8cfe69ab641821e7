"""docs/scenario-format.md: its tables are the table of verbs, and its examples answer as it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.cli.main import commands
from ptewalk.cosim.formats.scenarios import ScenarioRequest
from ptewalk.cosim.oracles.linux.kernels import find_kernel
from ptewalk.cosim.oracles.linux.machine import LinuxMachines, missing_tools
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario import verbs
from ptewalk.model.scenario.arguments import REQUIRED, Argument
from ptewalk.model.scenario.format import Scenario, Step, read
from ptewalk.model.scenario.replay import Replay

PAGE = Path(__file__).resolve().parents[3] / "docs" / "scenario-format.md"
KERNELS = {"3.11": "linux-3.11", "6.1": "linux-6.1", "6.12": "linux-6.12"}
BLOCKS = re.findall(r"```ops ?(\S*)\n(.*?)```", PAGE.read_text(), re.S)


def shown(default: Any) -> str:
    """A default, as the tables have it."""
    return json.dumps(list(default) if isinstance(default, tuple) else default)


def spelled(argument: Argument) -> str:
    """An argument in the table of verbs."""
    if argument.default is REQUIRED:
        return f"`{argument.name}`"
    return f"`{argument.name}={shown(argument.default)}`" if argument.default is not None else f"`[{argument.name}]`"


def kernels_of(verb: str) -> str:
    """The kernels whose recordings have a verb."""
    known = [kernel for kernel, profile in KERNELS.items() if verb in PROFILES[profile].verbs]
    return "all" if len(known) == len(KERNELS) else ", ".join(known)


def verb_rows() -> list[list[str]]:
    """Verb, arguments, kernels."""
    return [
        [f"`{name}`", " ".join(map(spelled, verb.arguments)), kernels_of(name)] for name, verb in verbs.VERBS.items()
    ]


def argument_rows() -> list[list[str]]:
    """Name, verbs, what it may be, default; verbs are left out where all that have it agree."""
    found: dict[tuple[str, str, str], list[str]] = {("who", verbs.WHO.type.text, "refused"): []}
    for name, verb in verbs.VERBS.items():
        for argument in verb.arguments:
            default = "refused" if argument.default is REQUIRED else shown(argument.default)
            default = "" if default == "null" else f"`{default}`" if default != "refused" else default
            found.setdefault((argument.name, argument.type.text, default), []).append(name)
    names = [name for name, _, _ in found]
    return [
        [f"`{name}`", ", ".join(f"`{verb}`" for verb in users) if names.count(name) > 1 else "", text, default]
        for (name, text, default), users in sorted(found.items(), key=lambda item: names.index(item[0][0]))
    ]


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    text = PAGE.read_text().split(f"\n{heading}\n")[1]
    rows = re.search(r"((?:^\|.*\|\n)+)", text, re.M)
    assert rows is not None
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[1].splitlines()[2:]]


def test_every_verb_is_in_the_page() -> None:
    assert [row[:2] + row[-1:] for row in table("## Verbs")] == verb_rows()
    assert all(len(row) == 4 and row[2] for row in table("## Verbs"))


def test_every_argument_is_in_the_page() -> None:
    assert [row[:4] for row in table("### Arguments")] == argument_rows()


def test_every_verb_is_known_to_a_kernel() -> None:
    assert set().union(*(profile.verbs for profile in PROFILES.values())) == set(verbs.VERBS)


def test_the_limits_are_in_the_page() -> None:
    text = PAGE.read_text()
    for number in (verbs.MAPPED_PAGES, verbs.WINDOW_PAGES, verbs.ACCESSES, verbs.MOVED_PAGES, verbs.TEXT_BYTES):
        assert f"| {number} " in text
    assert f"| {verbs.PROCESSES} processes, 0 to {verbs.PROCESSES - 1} |" in text


def values(text: str) -> Iterator[Any]:
    """The JSON values that stand one after the other in a text."""
    decoder = json.JSONDecoder()
    while text := text.strip():
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:]


def example(block: str) -> tuple[list[dict[str, Any]], list[tuple[int, str | None, list[Any], Any]]]:
    """Operations of an example, and what each answers: ret, errno, vals, scan."""
    ops, answers = [], []
    for line in block.splitlines():
        op, said = line.split(" -> ")
        ops.append(json.loads(op))
        if re.fullmatch("E[A-Z]+", said):
            nothing = {"walk_end": None, "regions": []} if ops[-1]["op"] == "pagemap_scan" else None
            answers.append((-1, said, [], nothing))
        else:
            ret, vals, scan = [*values(said), None, None][:3]
            answers.append((ret, None, vals or [], scan))
    return ops, answers


def answer(op: dict[str, Any], ret: int, vals: list[Any]) -> tuple[int, list[Any]]:
    """An answer as examples have it: recordings differ in what they say of a read(2) that succeeded."""
    return (1, []) if op["op"] == "syscall_read_into" and (ret, vals) in ((1, []), (0, ["ok"])) else (ret, vals)


@pytest.mark.parametrize(("profile", "block"), BLOCKS)
def test_examples(profile: str, block: str) -> None:
    ops, answers = example(block)
    run = Replay(
        Scenario("s", "", 0x100000000000, [Step(line, op, None) for line, op in enumerate(ops, 2)], "s", {}),
        PROFILES[profile or "linux-6.12"],
    )
    for op, due in zip(ops, answers, strict=True):
        verbs.arguments(op)
        outcome = run.step()
        assert (outcome.ret, outcome.errno, outcome.vals, outcome.scan) == due, op


def test_every_verb_has_an_example() -> None:
    assert {op["op"] for _, block in BLOCKS for op in example(block)[0]} == set(verbs.VERBS)


@pytest.mark.slow
def test_a_live_kernel_answers_as_the_examples_say() -> None:
    missing = missing_tools()
    if missing:
        pytest.skip("no live kernel: " + "; ".join(missing))
    try:
        image = find_kernel("6.12")
    except ToolError as error:
        pytest.skip(f"no live kernel: {error}")
    compared = 0
    with LinuxMachines(image) as machines:
        for profile, block in BLOCKS:
            if profile:
                continue
            ops, answers = example(block)
            for op, due, line in zip(ops, answers, machines.run(ScenarioRequest("s", ops))[1:], strict=True):
                ret, vals = answer(op, line["ret"], line["vals"])
                assert (ret, line["errno"], vals, line.get("scan")) == due, op
                compared += 1
    assert compared > 70


def test_the_scenario_by_hand_runs(tmp_path: Path) -> None:
    (text,) = re.findall(r"```jsonl\n(.*?)```", PAGE.read_text(), re.S)
    path = tmp_path / "hand.jsonl"
    path.write_text(text)
    (scenario,) = read(path)
    run = Replay(scenario, PROFILES["linux-6.1"])
    last = [run.step() for _ in scenario.steps][-1]
    assert [entry[:3] for entry in last.state[0].pages] == [[0, 2, "PX"], [2, 1, "PXD"], [3, 1, "PX"]]


def test_the_answers_can_be_wrong() -> None:
    """What the examples are compared with is not what the model says anyway."""
    block = BLOCKS[0][1].replace('["ok", "ok", "accerr"', '["ok", "ok", "ok"')
    assert block != BLOCKS[0][1]
    with pytest.raises(AssertionError):
        test_examples("", block)


def test_the_picture_in_the_page_is_what_the_command_draws(tmp_path: Path) -> None:
    (text,) = re.findall(r"```jsonl\n(.*?)```", PAGE.read_text(), re.S)
    (drawn,) = re.findall(r"```\n(  0  .*?)```", PAGE.read_text(), re.S)
    path = tmp_path / "hand.jsonl"
    path.write_text(text)
    result = CliRunner().invoke(commands, ["replay", str(path), "--picture", "hand"], standalone_mode=False)
    assert result.return_value == 0 and result.output.endswith("\n" + drawn)
