"""Programs whose MMU caches: the same output and epochs, as long as it is told what to forget."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ptewalk.cosim.programs.epochs import Every
from ptewalk.cosim.programs.trace import CachingWalker

Run = Callable[..., Any]
Have = Callable[[str], str]
SCRIPT = "for i in 1 2 3 4 5 6 7 8 9; do echo $i; done | sort -n -r | head -3"


@pytest.mark.slow
@pytest.mark.parametrize(("design", "track"), [("mmu", "off"), ("mmu", "native"), ("mmu-small", "fault")])
def test_nothing_changes_but_the_cycles(run: Run, have: Have, design: str, track: str) -> None:
    """Three processes, which fork, execute and end."""
    command = [have("busybox"), "sh", "-c", SCRIPT]
    bare, cached = (run(command, track=track, backend=one, epoch=Every("syscalls", 5)) for one in ("gateware", design))
    told = [(ended.status, ended.output, json.dumps(ended.run.epochs.as_json())) for ended in (bare, cached)]
    assert told[0] == told[1] and cached.output == b"9\n8\n7\n"
    assert cached.run.epochs.as_json()["count"] > 12
    same = ("faults", "marks", "mends", "system_calls")  # fills depend on the host: Unicorn sizes its TLB by time
    assert [cached.figures[name] for name in same] == [bare.figures[name] for name in same]
    assert cached.figures["hits"] > 50


@pytest.mark.slow
def test_a_tlb_that_is_not_told_what_to_forget_loses_stores(
    run: Run, have: Have, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CachingWalker, "invalidate", lambda self, linear: None)
    ended = run([have("busybox"), "sort", "-n", "/etc/services"], backend="mmu", epoch=Every("syscalls", 4))
    assert ended.run.epochs.as_json()["lost"] > 0
