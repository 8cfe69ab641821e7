"""Swap under a running program: it prints the same, and the same pages are reported."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.programs.epochs import Every
from ptewalk.cosim.programs.run import ProgramRun, Settings
from ptewalk.cosim.programs.walkers import ModelWalker
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries

Run = Callable[..., Any]
FEW = 24


@pytest.fixture
def command(have: Callable[[str], str], tmp_path: Path) -> list[str]:
    """sort, of numbers that fill some fifty pages."""
    lines = tmp_path / "lines"
    lines.write_text("".join(f"{number * 7919 % 100_003}\n" for number in range(2000)))
    return [have("busybox"), "sort", "-n", str(lines)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "track", "backend"),
    [
        ("linux-6.1", "off", "model"),
        ("linux-6.1", "native", "gateware"),
        ("linux-6.12", "fault", "model"),
        ("linux-7.3", "native", "gateware"),
    ],
)
def test_the_same_is_reported_as_without(run: Run, command: list[str], profile: str, track: str, backend: str) -> None:
    more = {"profile": profile, "track": track, "backend": backend, "epoch": Every("syscalls", 2)}
    whole, swapped = run(command, **more), run(command, swap=FEW, **more)
    assert swapped.figures["swapped_out"] > 100 and "swapped_out" not in whole.figures
    assert (swapped.status, swapped.output) == (whole.status, whole.output)
    assert json.dumps(swapped.run.epochs.as_json()) == json.dumps(whole.run.epochs.as_json())
    assert swapped.run.epochs.as_json()["lost"] == 0 and swapped.run.epochs.as_json()["changed"] > 100


@pytest.mark.slow
def test_a_kernel_whose_swap_entries_forget_loses_stores(
    run: Run, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Entries, "pte_swp_soft_dirty", lambda self, pte: False)
    assert run(command, swap=FEW, epoch=Every("syscalls", 2)).run.epochs.as_json()["lost"] > 0


@pytest.mark.slow
def test_images_hold_what_is_swapped_out(tmp_path: Path, command: list[str]) -> None:
    """A run that goes on from its images prints the rest, with swap as before."""
    folder = tmp_path / "images"
    settings = Settings(PROFILES["linux-6.1"], Track.NATIVE, seed=7, epoch=Every("syscalls", 10), swap=FEW)
    settings = settings.with_environment([])

    def go(chosen: Settings, begin: Callable[[ProgramRun], None]) -> tuple[bytes, int, dict[int, dict[int, bytes]]]:
        out = io.BytesIO()
        with ProgramRun(chosen, ModelWalker, stdin=io.BytesIO(), stdout=out, stderr=io.BytesIO()) as running:
            begin(running)
            running.run()
            assert running.epochs is not None and not running.epochs.as_json()["lost"]
            return out.getvalue(), running.figures()["swapped_out"], running.epochs.contents()

    whole = go(replace(settings, checkpoint=folder), lambda running: running.start(command[0], command[1:]))
    for number in (1, 2):  # after the third no epoch ends
        restored = go(settings, lambda running: running.restore(folder, number))  # noqa: B023 - called at once
        assert whole[0].endswith(restored[0]) and whole[2] == restored[2] and whole[2]
    assert whole[1] > 100


def test_too_few(ptewalk: Callable[..., tuple[int, str, str]]) -> None:
    code, _, errors = ptewalk("run", "--swap", "3", "--", "/bin/true")
    assert code == 2 and "3 is not in the range" in errors
