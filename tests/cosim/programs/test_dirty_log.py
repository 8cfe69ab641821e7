"""Epochs and images by the dirty log: the same contents as by pagemap, and a log that forgets is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.bench.caching import RuleOfCachingBroken
from ptewalk.cosim.bench.trace_lane import TraceLane
from ptewalk.cosim.programs.dirty_log import LoggedTables, ProgramLog
from ptewalk.cosim.programs.engine import ProgramEngine
from ptewalk.cosim.programs.epochs import Every
from ptewalk.model.state.tables import PageTables

Run = Callable[..., Any]
Have = Callable[[str], str]
Programs = Callable[[str], str]
Command = Callable[..., tuple[int, str, str]]
MARKS = Every("marker")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("memory", {"track": "native", "profile": "linux-7.3", "epoch": Every("syscalls", 20)}),
        ("memory", {"track": "fault", "swap": 16, "epoch": Every("syscalls", 40)}),
        ("relink", {"track": "off", "profile": "linux-6.1", "epoch": MARKS}),
        ("relink", {"track": "native", "profile": "linux-6.12", "engine": True, "epoch": MARKS}),
    ],
)
def test_epochs_by_the_log(run: Run, program: Programs, name: str, settings: dict[str, Any]) -> None:
    """No page that changed is missing, and each mark has a record.

    None is there that pagemap does not report, but of whole tables that moved: Linux marks nothing (move_normal_pmd).
    """
    by_pagemap, by_log = (run([program(name)], backend="mmu", pages=True, log=log, **settings) for log in (False, True))
    assert by_log.output == by_pagemap.output and by_log.status == 0
    told, wanted = by_log.run.epochs.as_json(), by_pagemap.run.epochs.as_json()
    assert (told["count"], told["pages"], told["changed"]) == (wanted["count"], wanted["pages"], wanted["changed"])
    assert (told["lost"], told["unlogged"]) == (0, 0) and "unlogged" not in wanted
    assert told["changed"] > 100 and told["count"] > 5
    for epoch, (of_log, of_pagemap) in enumerate(
        zip(by_log.run.epochs.pages, by_pagemap.run.epochs.pages, strict=True)
    ):
        assert _pages(of_log["changed"]) <= _pages(of_log["reported"]), epoch
        assert name == "relink" or _pages(of_log["reported"]) <= _pages(of_pagemap["reported"]), epoch
    assert (wanted["lost"] > 0) == (name == "relink")
    assert by_log.figures["log"]["records"] == by_log.figures["marks"]
    assert by_log.figures["log"]["appended"] > 100


def _pages(of: dict[int, list[list[int]]]) -> set[tuple[int, int]]:
    return {(who, first + place) for who, runs in of.items() for first, count in runs for place in range(count)}


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["records", "appends", "tables", "moves"])
def test_a_log_that_forgets_is_noticed(
    run: Run, program: Programs, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """What MMU, kernel or mremap should have told: the page is lost, and named."""
    if missing == "records":
        monkeypatch.setattr(ProgramLog, "record", lambda self, root, record: None)
    elif missing == "appends":
        monkeypatch.setattr(ProgramLog, "append", lambda self, root, first, last: None)
    elif missing == "tables":
        monkeypatch.setattr(LoggedTables, "relink", PageTables.relink)
    else:
        monkeypatch.setattr(ProgramEngine, "move", ProgramEngine.__base__.move)  # type: ignore[union-attr, attr-defined]
    given: dict[str, Any] = {"backend": "mmu", "log": True, "epoch": MARKS}
    told = run([program("relink")], **given, engine=missing == "moves").run.epochs.as_json()
    assert told["lost"] > 0 and "process 1, page 0x" in told["losses"][0]
    assert (told["unlogged"] > 0) == (missing != "tables")  # a table that moves is marked by its area alone


@pytest.mark.slow
def test_a_record_of_another_epoch_is_noticed(run: Run, program: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TraceLane, "epoch", lambda self, number: None)
    with pytest.raises(RuleOfCachingBroken, match="a record of page 0x.* has the parity of another epoch"):
        run([program("relink")], backend="mmu", log=True, epoch=MARKS)


@pytest.mark.slow
def test_images_of_what_was_logged(tmp_path: Path, have: Have, ptewalk: Command) -> None:
    """A program goes on from an image that the log made, with it, by pagemap, and on a design that has none."""
    images, out = tmp_path / "images", tmp_path / "out"
    command = (
        "run",
        "--log",
        "--design",
        "mmu",
        "--seed",
        "3",
        "--json",
        "--stdout",
        str(out),
        "--epoch",
        "syscalls:8",
    )
    code, printed, _ = ptewalk(*command, "--checkpoint", str(images), "--", have("busybox"), "sort", "/etc/services")
    told = json.loads(printed)
    assert code == 0 and (told["lost"], told["epochs"]["unlogged"]) == (0, 0)
    assert told["log"]["records"] == told["marks"] > 20 and told["images"] > 2
    brought = [len((image / "pages.bin").read_bytes()) // 4096 for image in sorted(images.iterdir())]
    assert 10 < sum(brought) < told["epochs"]["pages"] / 10
    for options, logs in (((), True), (("--no-log",), False), (("--design", "mmu-uncached"), False)):
        rest = tmp_path / "rest"
        code, printed, _ = ptewalk("restore", str(images), "--epoch", "2", "--json", "--stdout", str(rest), *options)
        assert code == 0 and json.loads(printed)["lost"] == 0
        assert ("log" in json.loads(printed)) == logs
        assert rest.stat().st_size and out.read_bytes().endswith(rest.read_bytes())


@pytest.mark.slow
def test_a_store_that_the_kernel_forgets_is_in_the_image(tmp_path: Path, program: Programs, ptewalk: Command) -> None:
    """linux-seed forgets a store at mprotect, and pagemap does not report it: the log has its record."""
    for options, lost, said in (((), 1, b"5\n"), (("--log",), 0, b"6\n")):
        images, out, rest = (tmp_path / f"{name}{lost}" for name in ("images", "out", "rest"))
        command = ("run", "--design", "mmu", *options, "--profile", "linux-seed", "--track", "off", "--seed", "3")
        command += ("--epoch", "marker", "--checkpoint", str(images), "--json", "--stdout", str(out))
        code, printed, _ = ptewalk(*command, "--", program("forget"))
        losses = [one for one in json.loads(printed)["epochs"]["losses"] if not one.startswith("epoch 1:")]
        assert len(losses) == lost and out.read_bytes() == b"6\n"
        assert code == 0 or not options
        code, _, _ = ptewalk("restore", str(images), "--epoch", "2", "--stdout", str(rest))
        assert code == 0 and rest.read_bytes() == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--design", "mmu"), "--log needs --epoch KIND: at an epoch's end it is read"),
        (("--epoch", "marker"), "--log is of an MMU that caches: give --design, one of mmu-small, mmu, mmu-fast, "),
        (("--epoch", "marker", "--backend", "model"), "--log is of an MMU that caches"),
        (("--epoch", "marker", "--design", "mmu-8walkers"), "a dirty log is of an MMU with one walker"),
    ],
)
def test_where_there_is_no_log(ptewalk: Command, options: tuple[str, ...], said: str) -> None:
    code, printed, errors = ptewalk("run", "--log", *options, "--", "/bin/true")
    assert code == 2 and not printed and errors.startswith(f"ptewalk: {said}") and len(errors.splitlines()) == 1
