"""Programs whose epochs end by the gateware's table engine: the same reports, and one that tells wrong is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.bench import engine as bench
from ptewalk.cosim.bench.engine_lane import RuleOfEngineBroken
from ptewalk.cosim.cli.programs import make_engine
from ptewalk.cosim.driver.engine_masks import clearing
from ptewalk.cosim.programs.arena import Arena
from ptewalk.cosim.programs.epochs import Every
from ptewalk.model.engine import Pages
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries

Run = Callable[..., Any]
Have = Callable[[str], str]
Programs = Callable[[str], str]
Command = Callable[..., tuple[int, str, str]]
SORT = ("busybox", "sort", "-n", "/etc/services")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("track", "profile", "backend"),
    [("off", "linux-6.1", "gateware"), ("fault", "linux-6.12", "gateware"), ("native", "linux-7.3", "mmu")],
)
def test_epochs_by_the_engine_are_those_of_arrays(
    run: Run, program: Programs, track: str, profile: str, backend: str
) -> None:
    """A program that maps, moves, forks and stores: its pages, its output and its marks are the same."""
    settings: dict[str, Any] = {"track": track, "profile": profile, "backend": backend, "epoch": Every("syscalls", 2)}
    plain, beside = (run([program("memory")], engine=engine, **settings) for engine in (False, True))
    told = [(ended.status, ended.output, json.dumps(ended.run.epochs.as_json())) for ended in (plain, beside)]
    assert told[0] == told[1] and plain.status == 0
    assert beside.run.epochs.as_json()["count"] > 5 and beside.run.epochs.as_json()["lost"] == 0
    did = beside.figures["engine"]
    assert min(did["clears"], did["pagemaps"], did["changed"], did["words"], did["moves"]) > 0
    same = ("faults", "marks", "mends", "system_calls")
    assert [beside.figures[name] for name in same] == [plain.figures[name] for name in same]
    assert "engine" not in plain.figures


@pytest.mark.slow
def test_a_clear_that_leaves_writable_is_noticed(run: Run, have: Have, monkeypatch: pytest.MonkeyPatch) -> None:
    """In `off` the processor writes on without a fault when RW stays; the engine that leaves it loses stores."""

    def leaves_writable(rules: Entries, *, permit: bool) -> Any:
        masks = clearing(rules, permit=permit)
        cleared = masks["present"]["clear"]
        return masks | {"present": masks["present"] | {"clear": cleared | {"low": cleared["low"] & ~2}}}

    right = run([have("busybox"), *SORT[1:]], track="off", engine=True, epoch=Every("syscalls", 4))
    assert right.run.epochs.as_json()["lost"] == 0
    monkeypatch.setattr(bench, "clearing", leaves_writable)
    wrong = run([have("busybox"), *SORT[1:]], track="off", engine=True, epoch=Every("syscalls", 4))
    assert wrong.run.epochs.as_json()["lost"] > 10 and wrong.output == right.output


def test_a_command_that_ends_short_ends_the_run() -> None:
    """A huge leaf of which the range has a part: software should have split it."""
    arena = Arena(1 << 24)
    for address, value in {0x1000: 0x2067, 0x2000: 0x3067, 0x3000: 0xE7}.items():
        arena.memory.store(address, value)
    engine = make_engine("gateware")(arena.memory)
    rules = Entries(PROFILES["linux-6.1"], track=Track.NATIVE)
    with pytest.raises(RuleOfEngineBroken, match="clears, .*: ended as PARTIAL at page 0x8"):
        engine.clear(Pages(1, 4, 8, 16), rules, permit=True, splits=False)


@pytest.mark.slow
def test_an_image_goes_on_with_an_engine_and_without(tmp_path: Path, have: Have, ptewalk: Command) -> None:
    """Images of both are the same pages, and either goes on from the other's."""
    whole = {}
    for engine in (True, False):
        folder, out = tmp_path / f"images-{engine}", tmp_path / f"out-{engine}"
        options = ("--seed", "3", "--json", "--stdout", str(out), "--epoch", "syscalls:8", "--checkpoint", str(folder))
        command = ("run", *(("--engine",) if engine else ()), *options, "--", have("busybox"), *SORT[1:])
        code, printed, _ = ptewalk(*command)
        assert code == 0 and ("engine" in json.loads(printed)) == engine
        whole[engine] = out.read_bytes()
        images = [(image / "pages.bin").read_bytes() for image in sorted(folder.iterdir())]
        assert len(images) > 2
        whole[f"images {engine}"] = b"".join(images)
    assert whole[True] == whole[False] and whole["images True"] == whole["images False"]
    for engine, options in ((True, ()), (True, ("--no-engine",)), (False, ("--engine",))):
        rest = tmp_path / "rest"
        folder = str(tmp_path / f"images-{engine}")
        code, printed, _ = ptewalk("restore", folder, "--epoch", "2", "--json", "--stdout", str(rest), *options)
        assert code == 0 and json.loads(printed)["lost"] == 0
        assert ("engine" in json.loads(printed)) == ((engine and not options) or "--engine" in options)
        assert whole[True].endswith(rest.read_bytes())


def test_an_engine_is_of_gateware(ptewalk: Command) -> None:
    code, _, errors = ptewalk("run", "--engine", "--backend", "model", "--", "/bin/true")
    assert (code, errors.strip()) == (2, "ptewalk: --engine is for --backend gateware")
