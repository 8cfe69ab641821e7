"""What `ptewalk replay` says beside its counts: another kernel's recording, and the picture of a scenario."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptewalk.cosim.checks.pictures import LEGEND, page_map
from ptewalk.cosim.checks.replay import ReplayJob, other_kernel, replay_model
from ptewalk.model.scenario.format import Scenario

MMAP = {"who": 0, "op": "mmap", "page": 0, "n": 10, "prot": "rw", "kind": "anon"}


def scenario(name: str, **header: object) -> Scenario:
    return Scenario(name, "", 0x100000000000, [], name, header)


@pytest.mark.parametrize(
    ("kernel", "profile", "hint"),
    [
        ("6.12.117", "linux-6.1", "b was recorded on 6.12.117: give --profile linux-6.12"),
        ("6.1.170", "linux-6.12", "b was recorded on 6.1.170: give --profile linux-6.1 or exact"),
        ("3.11.0", "linux-6.1", "b was recorded on 3.11.0: give --profile linux-3.11 or linux-seed"),
        ("6.16.5", "linux-6.12", "b was recorded on 6.16.5, which no profile describes"),
        ("7.3.4", "linux-6.12", "b was recorded on 7.3.4: give --profile linux-7.3"),
        ("6.12.117", "linux-6.12", None),
        ("6.1.170", "exact", None),
        (None, "linux-6.1", None),
    ],
)
def test_a_recording_of_another_kernel_is_named(kernel: str | None, profile: str, hint: str | None) -> None:
    header = {} if kernel is None else {"kernel": kernel}
    assert other_kernel([scenario("a", kernel="7.3.1"), scenario("b", **header)], ["b"], profile) == hint
    assert other_kernel([scenario("a", kernel="7.3.1"), scenario("b", **header)], [], profile) is None


def test_a_scenario_without_answers_is_drawn_with_what_its_steps_answer(tmp_path: Path) -> None:
    ops = [
        MMAP,
        {"who": 0, "op": "write", "page": 0, "n": 9},
        {"who": 0, "op": "mremap", "page": 20, "n": 1, "new_n": 1},
    ]
    head = {"t": "scenario", "name": "s", "base": "0x100000000000", "steps": len(ops)}
    path = tmp_path / "s.jsonl"
    lines = [head, *({"t": "step", "name": "s", "i": i, "op": op} for i, op in enumerate(ops))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = page_map(replay_model(ReplayJob((str(path),), "linux-6.1", picture="s"))["picture"])
    assert drawn[-1].strip() == LEGEND
    assert drawn[:-1] == [
        "  0  process 0: mmap page=0 n=10 prot=rw kind=anon -> 0",
        "       0:     0 |++++++++++|",
        "  1  process 0: write page=0 n=9 -> 0 ['ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'ok'] and 1 more",
        "       0:     0 |#########+|",
        "  2  process 0: mremap page=20 n=1 new_n=1 -> EFAULT",
    ]
