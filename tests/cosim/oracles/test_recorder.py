"""Reading scenarios, writing recordings whole or not at all, going on after an interruption."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.formats.scenarios import Line, Op, ScenarioRequest, as_request, as_scenario, request_lines
from ptewalk.cosim.oracles.linux import machine as linux_vm
from ptewalk.cosim.oracles.linux import recorder
from ptewalk.cosim.oracles.linux.image import GuestKernel
from ptewalk.cosim.oracles.linux.machine import GuestDied
from ptewalk.cosim.oracles.linux.operations import ScenarioError
from ptewalk.cosim.oracles.linux.recorder import read_requests, record

HEAD = {"t": "scenario", "name": "a", "doc": "d", "base": "0x100000000000", "steps": 1}
OP: Op = {"who": 0, "op": "munmap", "page": 0, "n": 1}
STEP = {"t": "step", "name": "a", "i": 0, "op": OP}
KERNEL = GuestKernel(Path("vmlinuz"), "6.1.0", "6.1.0", None)


def write(path: Path, *lines: object) -> Path:
    """A file of JSON lines; a string is written as it stands."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["s.jsonl", "s.jsonl.gz"])
def test_scenarios_with_and_without_answers(tmp_path: Path, name: str) -> None:
    answered = {**STEP, "ret": 0, "errno": None, "vals": [], "state": {}}
    bare = ScenarioRequest("b", [OP, OP], "", 0x7000)
    requests = read_requests(write(tmp_path / name, HEAD, answered, "", *request_lines(bare)))
    assert requests == [ScenarioRequest("a", [OP], "d", 0x100000000000), bare]


def test_sizes_of_huge_pages_are_told_by_the_scenario_line(tmp_path: Path) -> None:
    sized = ScenarioRequest("sized", [OP], thp_anon="16K-64K:always")
    assert sized.needs == (False, False, False, "16K-64K:always")
    assert as_request(as_scenario(sized)) == sized
    assert linux_vm.LinuxVm(KERNEL, thp_anon="16K-64K:always").options == " thp_anon=16K-64K:always"
    assert read_requests(write(tmp_path / "s.jsonl", *request_lines(sized))) == [sized]


def test_five_levels_are_told_by_the_scenario_line(tmp_path: Path) -> None:
    five = ScenarioRequest("five", [OP], five_levels=True)
    assert five.needs == (False, False, True, "")
    assert as_request(as_scenario(five)) == five
    assert read_requests(write(tmp_path / "s.jsonl", *request_lines(five))) == [five]
    head = request_lines(five)[0] | {"cr4": "750ef0"}
    assert not read_requests(write(tmp_path / "s.jsonl", head, *request_lines(five)[1:]))[0].five_levels


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["{"], "s.jsonl:1: "),
        ([HEAD], "cut off"),
        ([HEAD, {**STEP, "op": {"who": 0, "op": "nothing"}}], "s.jsonl:2: "),
        (
            [HEAD, {**STEP, "op": {"who": 0, "op": "sync"}}],
            ":2: sync needs 'file': a file's number, 0 to 4",
        ),
        ([HEAD, {**STEP, "op": {**OP, "op": "mmap", "prot": "rw", "kind": "s5", "file_page": 0, "flags": []}}], ":2: "),
    ],
)
def test_what_the_recorder_cannot_execute_is_named_with_its_line(
    tmp_path: Path, lines: list[object], text: str
) -> None:
    path = write(tmp_path / "s.jsonl", *lines)
    with pytest.raises(ToolError) as error:
        read_requests(path)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="none.jsonl: .*No such file"):
        read_requests(tmp_path / "none.jsonl")


class FakeVm:
    """A machine that answers with the scenario's name; `deaths` and `refusals` name those that it does not survive."""

    started = 0
    deaths: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    interrupted = ""

    def __init__(
        self, kernel: GuestKernel, *, two_nodes: bool, gigantic: bool, five_levels: bool, thp_anon: str, **options: Any
    ) -> None:
        type(self).started += 1
        self.two_nodes, self.gigantic, self.five_levels, self.thp_anon = two_nodes, gigantic, five_levels, thp_anon
        self.alive = True

    def __enter__(self) -> FakeVm:
        return self

    def close(self) -> None:
        self.alive = False

    def run(self, request: ScenarioRequest) -> list[Line]:
        if request.name == self.interrupted:
            raise KeyboardInterrupt
        if request.name in self.deaths:
            self.alive = False
            raise GuestDied("died")
        if request.name in self.refusals:
            raise ScenarioError("refused")
        assert request.needs == (self.two_nodes, self.gigantic, self.five_levels, self.thp_anon)
        return [{"t": "scenario", "name": request.name}, {"t": "step", "name": request.name}]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> type[FakeVm]:
    class Vm(FakeVm):
        pass

    monkeypatch.setattr(linux_vm, "LinuxVm", Vm)
    monkeypatch.setattr(recorder, "find_kernel", lambda name: KERNEL)
    return Vm


REQUESTS = [
    ScenarioRequest("a", [{"op": "move_pages"}]),
    ScenarioRequest("b", []),
    ScenarioRequest("c", [{"op": "mmap", "kind": "hugetlb1g"}]),
    ScenarioRequest("d", []),
    ScenarioRequest("e", [], five_levels=True),
]


def names(path: Path) -> list[str]:
    return [json.loads(line)["name"] for line in path.read_text("utf-8").splitlines()][::2]


def test_answers_stand_in_the_order_of_the_scenarios(tmp_path: Path, machine: type[FakeVm]) -> None:
    seen: list[tuple[int, int]] = []
    done = record(REQUESTS, tmp_path / "out.jsonl", progress=lambda at, total: seen.append((at, total)))
    assert (done.scenarios, done.steps, done.failures) == (5, 5, [])
    assert machine.started == 4, "plain, five levels, two nodes, 1 GiB pages"
    assert names(tmp_path / "out.jsonl") == list("abcde")
    assert seen == [(i, 5) for i in range(1, 6)]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_nothing_is_written_when_a_scenario_has_no_answer(tmp_path: Path, machine: type[FakeVm]) -> None:
    machine.deaths, machine.refusals = ("b",), ("d",)
    with pytest.raises(ToolError, match="2 of 5 scenarios have no answer; the first: b: died"):
        record(REQUESTS, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    assert machine.started == 5, "one more after the death"
    done = record(REQUESTS, tmp_path / "out.jsonl", keep_going=True)
    assert (done.resumed, done.failures) == (3, [("b", "died"), ("d", "refused")])
    assert names(tmp_path / "out.jsonl") == ["a", "c", "e"]


def test_an_interrupted_run_goes_on(tmp_path: Path, machine: type[FakeVm]) -> None:
    machine.interrupted = "d"
    with pytest.raises(KeyboardInterrupt):
        record(REQUESTS, tmp_path / "out.jsonl.gz")
    journal = tmp_path / "out.jsonl.gz.journal"
    journal.write_bytes(journal.read_bytes() + b'[4,[{"cut')
    machine.interrupted = ""
    done = record(REQUESTS, tmp_path / "out.jsonl.gz")
    assert (done.resumed, done.scenarios) == (1, 5)
    assert not journal.exists()


def test_a_journal_of_other_scenarios_is_not_taken(tmp_path: Path, machine: type[FakeVm]) -> None:
    machine.interrupted = "e"
    with pytest.raises(KeyboardInterrupt):
        record(REQUESTS, tmp_path / "out.jsonl")
    machine.interrupted = ""
    assert record(REQUESTS[:4], tmp_path / "out.jsonl").resumed == 0


def test_a_machine_that_does_not_boot_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_machine(*arguments: object, **options: object) -> None:
        raise ToolError("the guest did not boot")

    monkeypatch.setattr(linux_vm, "LinuxVm", no_machine)
    monkeypatch.setattr(recorder, "find_kernel", lambda name: KERNEL)
    with pytest.raises(ToolError, match="did not boot"):
        record(REQUESTS, tmp_path / "out.jsonl", keep_going=True)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path, machine: type[FakeVm]) -> None:
    with pytest.raises(ToolError, match="No such file or directory"):
        record(REQUESTS, tmp_path / "none" / "out.jsonl")


def test_ctrl_c_in_a_scenario_asks_the_guest_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to end the scenario: it would not answer, and the error would hide the interruption."""
    machine = linux_vm.LinuxVm(KERNEL)
    machine.alive = True
    asked: list[str] = []
    monkeypatch.setattr(machine, "_ask", lambda what, *arguments, **options: asked.append(what))

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(machine, "_run_steps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        machine.run(ScenarioRequest("one", []))
    assert asked == ["the start of one"]
    assert not machine.alive


def test_what_mremap_puts_where_the_kernel_chose_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the model; the guest goes on with the next scenario."""
    machine = linux_vm.LinuxVm(KERNEL)
    machine.alive = True
    request = ScenarioRequest("one", [{"who": 0, "op": "mremap", "page": 0, "n": 2, "new_n": 2, "flags": ["MAYMOVE"]}])
    answers = iter([linux_vm.Answer(request.base + (4096 << 27), 0, [], 0, [], np.zeros(0, np.int64))])
    monkeypatch.setattr(machine, "_ask", lambda *arguments, **options: "K")
    monkeypatch.setattr(machine, "_find_root", lambda who: 0x1000)
    monkeypatch.setattr(machine, "_take_answer", lambda: next(answers))
    with pytest.raises(ScenarioError, match="^one step 0: mremap put its pages where the kernel chose"):
        machine.run(request)
    assert machine.alive
