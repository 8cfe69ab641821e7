"""Comparison with a live kernel: a recording asked again, or the golden model against fresh answers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import locked, made_folder, user_cache_folder
from ptewalk.cosim.checks.replay import collect
from ptewalk.cosim.formats.scenarios import as_request, load
from ptewalk.cosim.oracles.linux.kernels import find_kernel
from ptewalk.cosim.oracles.linux.machine import require_tools
from ptewalk.cosim.oracles.linux.recorder import Recording, identity, record
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario import report as scenarios
from ptewalk.model.scenario.compare import Difference, kept_flags, with_flags
from ptewalk.model.scenario.format import Scenario
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.report import Report
from ptewalk.model.scenario.runs import contents_table, entry_table, page_table
from ptewalk.model.scenario.verbs import Unsupported

__all__ = ["answerable", "ask", "journal_of", "kernel_of", "replay_linux"]

_A = 1 << 5
_DEBIAN: Final = {f"linux-{series}": series for series in ("6.1", "6.12", "6.18", "7.2", "7.3")}
"""Profile to the series of Debian's kernel that does what it says."""


def kernel_of(profile: str, kernel: str | None) -> str | None:
    """The kernel to ask, as `find_kernel` takes it: the one named, that of $KERNEL, or the profile's own.

    Raises `ToolError` when none is named and Debian has none that the profile describes.
    """
    if kernel or os.environ.get("KERNEL"):
        return kernel
    if profile not in _DEBIAN:
        raise ToolError(f"Debian has no kernel that does as {profile}: name one with --kernel PATH")
    return _DEBIAN[profile]


def ask(
    asked: Sequence[Scenario],
    kernel: str | None,
    progress: Callable[[int, int], None] | None = None,
    *,
    keep_going: bool = False,
    journal: Path | None = None,
) -> tuple[list[Scenario], Recording]:
    """The same scenarios with the answers of a live kernel, and what `record` says of it.

    Raises `ToolError` when the machine cannot be started, and unless `keep_going` when a scenario has no answer.
    """
    requests = [as_request(found) for found in asked]
    with tempfile.TemporaryDirectory(prefix="ptewalk-live-") as folder:
        path = Path(folder) / "answers.jsonl"
        done = record(requests, path, kernel=kernel, progress=progress, keep_going=keep_going, journal=journal)
        return load([path]) if done.scenarios else [], done


def journal_of(asked: Sequence[Scenario], kernel: str | None) -> Path:
    """Where the answers to these scenarios are kept while `replay_linux` asks that kernel."""
    told = identity([as_request(found) for found in asked], find_kernel(kernel))
    return user_cache_folder() / "answers" / f"{told[:20]}.journal"


def _unanswerable(scenario: Scenario, profile: str) -> str | None:
    """Why a live kernel is not to be asked a scenario without answers: the model tells of a step that never ends."""
    run = Replay(scenario, PROFILES[profile])
    for index in range(len(scenario.steps)):
        try:
            run.step()
        except Unsupported as error:
            return f"step {index}: {error}"
    return None


def answerable(asked: Sequence[Scenario], profile: str) -> tuple[list[Scenario], dict[str, str]]:
    """Those that a live kernel may be asked, and of the others why not, by name."""
    refused = {one.name: why for one in asked if (why := _unanswerable(one, profile))}
    return [one for one in asked if one.name not in refused], refused


def replay_linux(
    asked: Sequence[Scenario],
    profile: str,
    kernel: str | None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Ask a live kernel; compare its answers with the recorded ones, where there are none the golden model with them.

    Without a kernel's name the profile's own is asked, of a recording no other than it is of; one that is named is
    asked whatever was recorded. What is answered is kept in a journal: an interrupted run goes on from there.

    Returns
    -------
    dict
        `replay.collect`'s object with `kernel`, `resumed` (scenarios of an interrupted run) and `journal`: a file that
        is to be removed once the result is told.
    """
    require_tools()
    booted = find_kernel(kernel_of(profile, kernel)).version
    for old in asked if kernel is None else ():
        recorded = old.header.get("kernel")
        if isinstance(recorded, str) and recorded.split(".")[:2] != booted.split(".")[:2]:
            raise ToolError(
                f"{old.name} was recorded on {recorded}, and {booted} would be asked: name it with --kernel"
            )
    bare = {old.name for old in asked if any(step.recorded is None for step in old.steps)}
    _, refused = answerable([old for old in asked if old.name in bare], profile)
    put = [old for old in asked if old.name not in refused]
    chosen = kernel_of(profile, kernel)
    journal = journal_of(put, chosen)
    with made_folder(journal.parent), locked(journal.with_suffix(".lock")):
        live, done = ask(put, chosen, progress, keep_going=bool(bare), journal=journal)
    refused |= dict(done.failures)
    answers = {new.name: new for new in live}
    report = Report()
    fresh = [answers[name] for name in answers if name in bare]
    for old in asked:
        if old.name in bare or old.name in refused:
            continue
        new = answers[old.name]
        report.scenarios += 1
        report.steps += len(old.steps)
        for index in range(len(old.steps)):
            found = _differences(old, new, index)
            if found is None:
                report.agree += 1
                continue
            report.differ += 1
            report.differing.setdefault(old.name, found)
            report.first_difference = report.first_difference or found
    merged = collect(report)
    if fresh:
        modelled = collect(scenarios.replay(fresh, profile, track=Track.OFF))
        for name in ("scenarios", "steps", "agree", "differ", "skipped"):
            merged[name] += modelled[name]
        merged["first_difference"] = merged["first_difference"] or modelled["first_difference"]
        for name in ("differing", "differing_steps", "skipped_scenarios"):
            merged[name] |= modelled[name]
    merged["skipped"] += sum(len(old.steps) for old in asked if old.name in refused)
    merged["skipped_scenarios"] |= refused
    return merged | {"kernel": done.kernel, "resumed": done.resumed, "journal": str(journal)}


def _differences(old: Scenario, new: Scenario, index: int) -> Difference | None:
    """The first field in which the live answer of a step differs from the recorded one."""
    recorded, answer = old.steps[index].recorded or {}, new.steps[index].recorded or {}
    for name in ("ret", "errno", "vals", "scan"):
        if recorded.get(name) != answer.get(name):
            return Difference(old.name, index, f"live {name}", answer.get(name), recorded.get(name))
    states = recorded["state"], answer["state"]
    if states[0].keys() != states[1].keys():
        return Difference(old.name, index, "live processes", sorted(states[1]), sorted(states[0]))
    unsure = old.header.get("a_unsure_from")
    ignored = _A if unsure is not None and index >= unsure else 0
    for who, before in states[0].items():
        after = states[1][who]
        for name in ("vmas", "root", "tables"):
            if name == "vmas" and name in before:
                kept = kept_flags(old)
                if with_flags(before[name], kept) != with_flags(after.get(name) or [], kept):
                    return Difference(old.name, index, f"live {name}[{who}]", after.get(name), before[name])
            elif name in before and before[name] != after.get(name):
                return Difference(old.name, index, f"live {name}[{who}]", after.get(name), before[name])
        by_page: dict[str, Callable[[list[Any]], dict[Any, Any]]] = {
            "pages": page_table,
            "ptes": lambda runs: entry_table(runs, ignored),
            "contents": contents_table,
        }
        for name, table in by_page.items():
            if name not in before:
                continue
            wanted, seen = table(before[name] or []), table(after.get(name) or [])
            for key in sorted(wanted.keys() | seen.keys()):
                if wanted.get(key) != seen.get(key):
                    return Difference(old.name, index, f"live {name}[{who}][{key}]", seen.get(key), wanted.get(key))
    return None
