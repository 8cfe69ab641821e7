"""The recorder on a live kernel: what was recorded before is answered again, and a guest that dies says so."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.formats.scenarios import Line, Op, ScenarioRequest, as_request, without_answers
from ptewalk.cosim.oracles.linux.image import GuestKernel
from ptewalk.cosim.oracles.linux.kernels import find_kernel
from ptewalk.cosim.oracles.linux.machine import GuestDied, LinuxVm, missing_tools
from ptewalk.cosim.oracles.linux.operations import ScenarioError
from ptewalk.model.scenario.format import read

pytestmark = pytest.mark.slow

OWN = Path(__file__).parents[2] / "data" / "own-linux-6.1.jsonl.gz"
EVERY = 12
"""Every so many of the recorded scenarios is asked again."""
ACCESSED = 1 << 5


@pytest.fixture(scope="module")
def kernel() -> GuestKernel:
    missing = missing_tools()
    if missing:
        pytest.skip("no live kernel: " + "; ".join(missing))
    try:
        return find_kernel()
    except ToolError as error:
        pytest.skip(f"no live kernel: {error}")


@pytest.fixture(scope="module")
def vm(kernel: GuestKernel) -> Iterator[LinuxVm]:
    with LinuxVm(kernel) as machine:
        yield machine


def recorded() -> list[list[Line]]:
    """The scenarios of the own recording: for each its lines."""
    scenarios: list[list[Line]] = []
    with gzip.open(OWN, "rt") as file:
        for line in map(json.loads, file):
            if line["t"] == "scenario":
                scenarios.append([])
            scenarios[-1].append(line)
    return scenarios


def without_accessed(step: Line) -> Line:
    """The step with A of present leaves masked, and with leaves one by one (A may cut runs)."""
    step = json.loads(json.dumps(step))
    for process in step["state"].values():
        leaves = []
        for page, count, level, flags, upper, identity, stride in process["ptes"]:
            number = int(flags, 16)
            shown = number & ~ACCESSED if number & 0x101 else number
            for j in range(count if level == 1 else 1):
                leaves.append((page + j, level, shown, upper, None if identity is None else identity + j * stride))
        process["ptes"] = leaves
    return step


def ask_again(machine: LinuxVm, lines: list[Line]) -> tuple[list[Line], list[Line]]:
    """(recorded steps, live steps), A masked where it is not sure."""
    head, *steps = lines
    live = machine.run(as_request(without_answers(lines)))
    unsure = head.get("a_unsure_from", len(steps))
    assert live[0] == head
    mask = [without_accessed(step) if i >= unsure else step for i, step in enumerate(steps)]
    return mask, [without_accessed(step) if i >= unsure else step for i, step in enumerate(live[1:])]


def test_the_recording_is_answered_again(vm: LinuxVm) -> None:
    chosen = [lines for lines in recorded() if not any(line.get("op", {}).get("op") == "move_pages" for line in lines)]
    compared = 0
    if vm.kernel.version != chosen[0][0]["kernel"]:
        pytest.skip(f"recorded on {chosen[0][0]['kernel']}, the kernel at hand is {vm.kernel.version}")
    for lines in chosen[::EVERY]:
        was, now = ask_again(vm, lines)
        assert now == was, lines[0]["name"]
        compared += len(was)
    assert compared >= 250


def test_the_files_of_proc_say_the_same_again(vm: LinuxVm) -> None:
    """smaps, names of lines, and the pagemap of a process that has ended; LRU flags of kpageflags may differ."""
    for old in read(OWN.with_name("files-linux-6.1.jsonl.gz")):
        live = vm.run(replace(as_request(old), files=True))
        for step, line in zip(old.steps, live[1:], strict=True):
            was, now = (step.recorded or {}).get("files", {}), line.get("files", {})
            assert now.keys() == was.keys()
            same = [name for name in was if not name.endswith("/kpageflags")]
            assert {name: now[name] for name in same} == {name: was[name] for name in same}, old.name


MMAP: Op = {"who": 0, "op": "mmap", "page": 0, "n": 4, "prot": "rw", "kind": "anon"}


def test_first_touch_and_clear(vm: LinuxVm) -> None:
    ops: list[Op] = [
        MMAP,
        {"who": 0, "op": "write", "page": 1, "n": 1, "step": 1},
        {"who": 0, "op": "clear_refs", "value": "4", "target": 0},
        {"who": 0, "op": "write", "page": 1, "n": 1, "step": 1},
    ]
    head, *steps = vm.run(ScenarioRequest("touch", ops))
    assert (head["steps"], head["cr0"], head["efer"]) == (4, "80050033", "d01")
    flags = [[run[3] for run in step["state"]["0"]["ptes"]] for step in steps]
    assert flags[0] == []
    assert flags[1][0].endswith("867"), "P, RW, US, A, D, SOFT_DIRTY"
    assert int(flags[2][0], 16) & 0x802 == 0, "clear_refs takes RW and SOFT_DIRTY"
    assert flags[3] == flags[1]
    assert [step["state"]["0"]["pages"] for step in steps[2:]] == [
        [[1, 1, "PX", "a", 1, 0]],
        [[1, 1, "PXD", "a", 1, 0]],
    ]


def test_a_large_window(vm: LinuxVm) -> None:
    ops: list[Op] = [
        {**MMAP, "n": 1310720},
        {"who": 0, "op": "write", "page": 0, "n": 1310720, "step": 262144},
        {"who": 0, "op": "clear_refs", "value": "4", "target": 0},
    ]
    last = vm.run(ScenarioRequest("large", ops))[-1]["state"]["0"]
    assert [run[:2] for run in last["ptes"]] == [[262144 * i, 1] for i in range(5)]
    assert sum(level == 3 for level, *_ in last["tables"]) == 5


def test_five_levels(kernel: GuestKernel) -> None:
    ops: list[Op] = [{**MMAP, "n": 2}, {"who": 0, "op": "write", "page": 1, "n": 1, "step": 1}]
    with LinuxVm(kernel, five_levels=True) as machine:
        head, _, step = machine.run(ScenarioRequest("five", ops, five_levels=True))
        assert int(head["cr4"], 16) >> 12 & 1, "CR4.LA57"
        state = step["state"]["0"]
        assert [level for level, *_ in state["tables"]] == [5, 4, 3, 2]
        assert state["ptes"][0][4] == "67.67.67.67"
        assert state["contents"] == [[1, 1, "169d459b"]], "one byte 2 at offset 8"
        with pytest.raises(ScenarioError, match="four: needs a machine with .*five_levels=False"):
            machine.run(ScenarioRequest("four", ops))


def test_contents_of_whole_pages(vm: LinuxVm) -> None:
    filled = zlib.crc32(b"\x5a" * 4096)
    ops: list[Op] = [
        {**MMAP, "n": 512, "kind": "hugetlb"},
        {"who": 0, "op": "same", "page": 3, "n": 2},
        {"who": 0, "op": "mprotect", "page": 0, "n": 512, "prot": "-"},
        {"who": 0, "op": "munmap", "page": 0, "n": 512},
    ]
    steps = vm.run(ScenarioRequest("contents", ops))[1:]
    run = [3, 2, f"{filled:08x}"]
    assert [step["state"]["0"]["contents"] for step in steps] == [[], [run], [run], []]


def test_scenarios_that_cannot_be_executed(vm: LinuxVm) -> None:
    dead: list[Op] = [{"who": 0, "op": "fork", "child": 1}, {"who": 1, "op": "exit"}]
    for op, text in (
        ({"who": 1, "op": "exit"}, r"step 2: exit: process 1 \(who\) does not live"),
        (
            {"who": 0, "op": "clear_refs", "value": "4", "target": 1},
            r"clear_refs: process 1 \(target\) does not live",
        ),
        ({"who": 0, "op": "fork", "child": 0}, "step 2: 'child' must be 1 to 15, not 0"),
        ({"who": 0, "op": "move_pages", "page": 0, "n": 1, "node": 1}, "needs a machine with two_nodes=True"),
    ):
        with pytest.raises(ScenarioError, match=text):
            vm.run(ScenarioRequest("bad", [*dead, op]))
    assert vm.run(ScenarioRequest("good", [MMAP]))[1]["ret"] == 0, "the machine lives on"


def test_a_machine_that_lost_hugetlb_pages_is_spent(kernel: GuestKernel) -> None:
    mmap: Op = {"who": 0, "op": "mmap", "page": 0, "n": 1024, "prot": "rw", "kind": "hugetlb"}
    part: Op = {"who": 0, "op": "mremap", "page": 0, "n": 512, "new_n": 512, "flags": ["MAYMOVE", "FIXED"]}
    with LinuxVm(kernel) as vm:
        vm.run(ScenarioRequest("whole", [mmap]))
        assert vm.alive
        vm.run(ScenarioRequest("part", [mmap, part | {"new_page": 2048}]))
        assert not vm.alive, "the part that stays has lost its reservation, and nobody gives it back"


def test_a_machine_that_is_lost(kernel: GuestKernel) -> None:
    with LinuxVm(kernel, seconds=5) as machine:
        machine._qemu.kill()
        with pytest.raises(GuestDied, match="the guest died at the start of lost"):
            machine.run(ScenarioRequest("lost", [MMAP]))
        with pytest.raises(GuestDied, match="start a new LinuxVm"):
            machine.run(ScenarioRequest("lost", [MMAP]))


def test_a_kernel_without_its_modules(kernel: GuestKernel) -> None:
    """It has no swap, and what it answers says so."""
    with LinuxVm(replace(kernel, modules=None)) as machine:
        head, step = machine.run(ScenarioRequest("bare", [MMAP]))
        assert not machine.has_swap
    assert (head["t"], head["swap"], step["t"]) == ("scenario", "none", "step")


def test_a_machine_that_does_not_start(kernel: GuestKernel) -> None:
    with pytest.raises(ToolError, match=r"did not boot .*no-such-cpu"), LinuxVm(kernel, cpu="no-such-cpu"):
        pass
