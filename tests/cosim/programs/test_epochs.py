"""What is reported covers what changed; without the flush after a clear it does not, and that is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs.epochs import Every
from ptewalk.cosim.programs.user_memory import ProgramMmu

Run = Callable[..., Any]
Have = Callable[[str], str]
Programs = Callable[[str], str]
SORT = "for i in 1 2 3 4 5 6 7 8 9; do echo $i $RANDOM; done | sort -n -k 2 | tail -3"


@pytest.mark.parametrize(("text", "every"), [("syscalls:7", ("syscalls", 7)), ("marker", ("marker", 0))])
def test_when(text: str, every: tuple[str, int]) -> None:
    assert Every.parse(text) == Every(*every)


@pytest.mark.parametrize("text", ["", "syscalls", "syscalls:0", "pages:4", "marker:3", "instructions:-1"])
def test_no_such_epoch(text: str) -> None:
    with pytest.raises(ToolError, match=r"^no epoch '.*': give syscalls:N, instructions:N or marker$"):
        Every.parse(text)


@pytest.mark.slow
def test_no_store_is_lost_and_every_way_reports_the_same(run: Run, have: Have) -> None:
    """Three ways of tracking, both backends; only the faults differ."""
    told, faults = set(), {}
    for track in ("off", "fault", "native"):
        for backend in ("model", "gateware") if track != "fault" else ("model",):
            ended = run([have("busybox"), "sh", "-c", SORT], track=track, backend=backend, epoch=Every("syscalls", 12))
            epochs = ended.run.epochs.as_json()
            assert epochs["lost"] == 0 and epochs["elsewhere"] == 0 and epochs["count"] > 12
            assert epochs["changed"] > 100 and epochs["same_value"] > 0
            told.add((json.dumps(epochs), ended.output))
            faults[track, backend] = ended.figures["faults"]
    assert len(told) == 1
    assert all(faults[track, "model"] == faults[track, "gateware"] for track in ("off", "native"))
    assert faults["off", "model"] > 1.2 * faults["native", "model"] == 1.2 * faults["fault", "model"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [41, 97])
def test_children_of_children_inherit_what_is_known(run: Run, have: Have, count: int) -> None:
    """A process whose parent was made in the same epoch has pages that neither of them stored to."""
    nested = "((echo 1; (echo 2 | cat) | cat) | cat) | cat"
    ended = run([have("busybox"), "sh", "-c", nested], epoch=Every("syscalls", count))
    assert ended.output == b"1\n2\n" and ended.run.epochs.as_json()["lost"] == 0


@pytest.mark.slow
def test_by_instructions(run: Run, program: Programs) -> None:
    ended = run([program("memory")], epoch=Every("instructions", 5_000))
    epochs = ended.run.epochs.as_json()
    assert ended.status == 0 and epochs["count"] > 20 and epochs["lost"] == 0 and epochs["changed"] > 100


@pytest.mark.slow
def test_without_the_flush_after_a_clear_pages_are_lost(run: Run, have: Have, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the output of the program is right all the same: nothing but this check sees it."""
    command = [have("busybox"), "sort", "-n", "/etc/services"]
    right = run(command, epoch=Every("syscalls", 4))
    assert right.run.epochs.as_json()["lost"] == 0
    monkeypatch.setattr(ProgramMmu, "invalidate", lambda self, linear=None, pcid=0: None)
    wrong = run(command, epoch=Every("syscalls", 4))
    epochs = wrong.run.epochs.as_json()
    assert epochs["lost"] > 10 and wrong.output == right.output
    assert epochs["losses"][0].startswith("epoch ") and ", page 0x" in epochs["losses"][0]


@pytest.mark.slow
@pytest.mark.parametrize("track", ["off", "native"])
def test_the_marker_and_every_kind_of_change(run: Run, program: Programs, track: str) -> None:
    """One epoch: 3 pages stored to, 2 stored to with the same value, 4 of a new area."""
    ended = run([program("dirty")], track=track, epoch=Every("marker"))
    before, after = ended.run.epochs.done
    assert before.number == 1 and before.changed > 16
    others = 2  # the stack, and the page of errno: the marker fails with ENOSYS
    assert (after.changed, after.same_value, after.area, after.lost) == (3 + 4 + others, 2, 0, 0)


@pytest.mark.slow
def test_a_lost_store_is_exit_code_1(tmp_path: Path, have: Have, ptewalk: Callable[..., tuple[int, str, str]]) -> None:
    out = tmp_path / "out"
    command = ("run", "--json", "--stdout", str(out), "--epoch", "syscalls:4", "--", have("busybox"), "sort", "-n")
    code, printed, _ = ptewalk(*command, "/etc/services")
    assert code == 0 and json.loads(printed)["epochs"]["lost"] == 0
    code, printed, _ = ptewalk("run", "--mutant", "unmarked-write-granted", *command[1:], "/etc/services")
    assert code == 1 and json.loads(printed)["lost"] > 0
