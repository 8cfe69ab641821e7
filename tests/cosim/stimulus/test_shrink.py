"""The shrinker: fewest steps, plainest arguments, nothing that cannot run; and what a replay that differs leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks import reproduce
from ptewalk.cosim.checks.live import kernel_of
from ptewalk.cosim.checks.reproduce import Place, first_place, reduce_live, reduce_recorded, repeat_command
from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.cosim.formats.scenarios import (
    Line,
    ScenarioRequest,
    as_scenario,
    load,
    plain_text,
    scenario_lines,
    scenario_text,
)
from ptewalk.cosim.oracles.linux.operations import ScenarioError
from ptewalk.cosim.stimulus.scenarios import generated
from ptewalk.cosim.stimulus.shrink import prefix, shrink
from ptewalk.model.profiles import LINUX_6_1, LINUX_6_12
from ptewalk.model.scenario.compare import differences
from ptewalk.model.scenario.format import Scenario, read
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.report import replay

Op = dict[str, Any]


def mmap(page: int, n: int, **more: Any) -> Op:
    return {"op": "mmap", "page": page, "n": n, "prot": "rw", "kind": "anon", "file_page": 0, "flags": []} | more


def made(*operations: Op) -> Scenario:
    return as_scenario(ScenarioRequest("made", [{"who": 0} | operation for operation in operations]))


def ops(scenario: Scenario) -> list[Op]:
    return [step.op for step in scenario.steps]


def having(*wanted: str) -> Callable[[Scenario], bool]:
    """The verbs are there, in this order."""

    def fails(scenario: Scenario) -> bool:
        verbs = iter(step.op["op"] for step in scenario.steps)
        return all(verb in verbs for verb in wanted)

    return fails


# Steps ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [("write",), ("mmap", "clear_refs"), ("mmap", "write", "clear_refs", "read")])
def test_fewest_steps(wanted: tuple[str, ...]) -> None:
    for scenario in generated(120, 1, LINUX_6_1):
        if having(*wanted)(scenario):
            assert [step.op["op"] for step in shrink(scenario, having(*wanted)).steps] == list(wanted)


def test_no_single_step_can_be_left_out() -> None:
    """A predicate that wants an even number of writes has no shorter answer by one step."""

    def fails(scenario: Scenario) -> bool:
        writes = [step for step in scenario.steps if step.op["op"] == "write"]
        return len(writes) >= 2 and len(writes) % 2 == 0

    scenario = made(mmap(0, 4), *({"op": "write", "page": 0, "n": 4, "step": 1} for _ in range(8)))
    small = shrink(scenario, fails)
    assert fails(small)
    assert [step.op["op"] for step in small.steps] == ["write", "write"]


def test_a_child_leaves_with_its_fork() -> None:
    scenario = made(
        mmap(0, 4),
        {"op": "fork", "child": 1},
        {"who": 1, "op": "fork", "child": 2},
        {"who": 2, "op": "write", "page": 0, "n": 1},
        {"op": "clear_refs", "value": "4", "target": 1},
        {"op": "read", "page": 0, "n": 1},
    )
    assert [op["op"] for op in ops(shrink(scenario, having("read")))] == ["read"]


def test_only_what_can_run_is_asked() -> None:
    def fails(scenario: Scenario) -> bool:
        live, born = {0}, {0}
        for op in ops(scenario):
            assert op["who"] in live
            assert op.get("target", 0) in born
            if op["op"] == "fork":
                assert op["child"] not in born
                live.add(op["child"])
                born.add(op["child"])
            if op["op"] == "exit":
                live.remove(op["who"])
        return having("write")(scenario)

    for scenario in generated(60, 7, LINUX_6_1, ("fork",)):
        if having("write")(scenario):
            assert [op["op"] for op in ops(shrink(scenario, fails))] == ["write"]


def test_recorded_answers_go() -> None:
    scenario = load([KERNELS["linux-6.1"]])[0]
    small = shrink(scenario, having("write"))
    assert all(step.recorded is None for step in small.steps)
    assert small.header["steps"] == len(small.steps) == 1
    assert small.control == scenario.control


# Arguments -----------------------------------------------------------------------------------------------------------


def test_sizes_shrink_with_what_they_must_equal() -> None:
    scenario = made(mmap(4, 16), {"op": "mremap", "page": 4, "n": 16, "new_n": 16, "flags": ["MAYMOVE"], "new_page": 0})

    def fails(candidate: Scenario) -> bool:
        moved = [op for op in ops(candidate) if op["op"] == "mremap"]
        return bool(moved) and moved[0]["n"] == moved[0]["new_n"] >= 3

    (op,) = ops(shrink(scenario, fails))
    assert (op["n"], op["new_n"], op["flags"]) in ((3, 3, []), (4, 4, []))


def test_plainer_arguments() -> None:
    scenario = made(
        mmap(4, 16, kind="s0", prot="rwx", file_page=9, flags=["populate"]),
        {"op": "write", "page": 4, "n": 9, "step": 2},
    )
    assert ops(shrink(scenario, having("mmap", "write"))) == [
        {"who": 0} | mmap(4, 1),
        {"who": 0, "op": "write", "page": 4, "n": 1, "step": 1},
    ]


def test_what_matters_stays() -> None:
    scenario = made(mmap(4, 16, kind="s0", file_page=9), {"op": "write", "page": 4, "n": 9, "step": 1})
    small = shrink(scenario, lambda one: any(op.get("kind") == "s0" and op["n"] > 6 for op in ops(one)))
    assert ops(small) == [{"who": 0} | mmap(4, 7, kind="s0")]


# Limits --------------------------------------------------------------------------------------------------------------


def test_it_must_fail_first() -> None:
    with pytest.raises(ValueError, match="scenario 'made' must fail before it can be shrunk"):
        shrink(made(mmap(0, 1)), having("fork"))


def test_attempts_are_bounded() -> None:
    asked = 0

    def fails(scenario: Scenario) -> bool:
        nonlocal asked
        asked += 1
        return having("write")(scenario)

    scenario = made(*(mmap(k, 8) for k in range(20)), {"op": "write", "page": 0, "n": 8, "step": 1})
    small = shrink(scenario, fails, attempts=2)
    assert asked == 3
    assert having("write")(small)


def test_no_candidate_is_asked_twice() -> None:
    seen: set[str] = set()

    def fails(scenario: Scenario) -> bool:
        text = repr(ops(scenario))
        assert text not in seen or len(scenario.steps) == 6
        seen.add(text)
        return having("write", "read")(scenario)

    shrink(made(*(mmap(k, 8) for k in range(4)), *({"op": v, "page": 0, "n": 1} for v in ("write", "read"))), fails)


# What a replay leaves ------------------------------------------------------------------------------------------------


def test_a_prefix_keeps_its_recorded_answers(tmp_path: Path) -> None:
    for scenario in load([KERNELS["linux-6.1"]])[:20]:
        cut = prefix(scenario, 3)
        path = tmp_path / "cut.jsonl"
        path.write_text(scenario_text(scenario_lines(cut)))
        (again,) = read(path)
        assert ops(again) == ops(scenario)[:3]
        assert replay([again], "linux-6.1").agree == 3


def test_the_first_place() -> None:
    asked = [as_scenario(ScenarioRequest(name, [{"who": 0, "op": "ksm_scan"}] * 3)) for name in "abc"]
    assert first_place(asked, {"differing_steps": {}}) is None
    assert first_place(asked, {"differing_steps": {"c": 0, "b": 2}}) == Place(asked[1], 2)


def test_a_recorded_difference_is_cut() -> None:
    scenario = load([KERNELS["linux-6.1"]])[0]
    lines = reduce_recorded(Place(scenario, 1))
    assert [line["t"] for line in lines] == ["scenario", "step", "step"]
    assert lines[0]["steps"] == 2
    assert all("ret" in line for line in lines[1:])
    assert "ret" not in plain_text(lines)


def test_the_command_that_repeats_it() -> None:
    options = {"backend": "gateware", "no-soft-dirty": False, "simulator": None, "mutant": "m"}
    assert repeat_command("a b.jsonl", options) == "ptewalk replay 'a b.jsonl' --backend gateware --mutant m"
    assert repeat_command("a", {"no-soft-dirty": True}) == "ptewalk replay a --no-soft-dirty"


def test_the_kernel_is_the_profiles_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """--profile linux-6.12 without --kernel must not be judged by a 6.1."""
    monkeypatch.delenv("KERNEL", raising=False)
    assert [kernel_of(name, None) for name in ("linux-6.1", "linux-6.12")] == ["6.1", "6.12"]
    assert kernel_of("linux-seed", "/boot/bzImage") == "/boot/bzImage"
    with pytest.raises(ToolError, match="Debian has no kernel that does as linux-seed: name one with --kernel PATH"):
        kernel_of("linux-seed", None)
    monkeypatch.setenv("KERNEL", "/boot/bzImage")
    assert kernel_of("linux-seed", None) is None, "find_kernel takes $KERNEL"


class Machines:
    """Stands for a live kernel: the model of 6.12 answers."""

    asked = 0

    def __init__(self, kernel: str | None) -> None:
        assert kernel == "6.12"

    def __enter__(self) -> Machines:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def run(self, request: ScenarioRequest) -> list[Line]:
        Machines.asked += 1
        if Machines.asked == 3:
            raise ScenarioError("the guest died")
        scenario = as_scenario(request)
        run = Replay(scenario, LINUX_6_12)
        lines = scenario_lines(scenario)
        for line in lines[1:]:
            outcome = run.step()
            state = {str(who): {"pages": seen.pages, "vmas": seen.vmas} for who, seen in outcome.state.items()}
            line |= {"ret": outcome.ret, "errno": outcome.errno, "vals": outcome.vals, "state": state}
        return lines


def answers_to(scenario: Scenario) -> Scenario:
    """The scenario with the answers of `Machines`."""
    Machines.asked = 10
    header, *lines = Machines("6.12").run(ScenarioRequest(scenario.name, ops(scenario), "", scenario.base))
    steps = [type(scenario.steps[0])(0, line["op"], line) for line in lines]
    return Scenario(scenario.name, "", scenario.base, steps, "", header)


def test_a_live_kernel_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model of 6.1 differs from a kernel, here that of 6.12, the kernel answers every candidate."""
    monkeypatch.setattr(reproduce, "LinuxMachines", Machines)
    for scenario in generated(400, 3, LINUX_6_1, ("migrate",)):
        answered = answers_to(scenario)
        step = replay([answered], "linux-6.1").first_difference
        if step is not None:
            break
    assert step is not None
    Machines.asked = 0
    header, *lines = reduce_live(Place(answered, step.step), "linux-6.1", "6.12")
    assert len(lines) < step.step + 1
    small = Scenario(header["name"], "", int(header["base"], 16), [], "", header)
    small.steps = [type(answered.steps[0])(0, line["op"], line) for line in lines]
    report = replay([small], "linux-6.1")
    assert report.differ > 0
    assert json.loads(json.dumps(lines)) == lines
    run = Replay(small, LINUX_6_12)
    assert not any(differences(small, k, run.step(), raw_tables=False) for k in range(len(lines)))


def test_a_difference_that_does_not_come_again_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "LinuxMachines", Machines)
    scenario = load([KERNELS["linux-6.12"]])[0]
    Machines.asked = 10
    assert reduce_live(Place(scenario, 1), "linux-6.12", "6.12") == reduce_recorded(Place(scenario, 1))
