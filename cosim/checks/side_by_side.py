"""`ptewalk kernels`: the same scenarios on several kernels, side by side.

A kernel is a profile of the golden model, or a live one. Of each step every kernel has an answer, and the pages are
named of which pagemap tells different things.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.accuracy import Accuracy, count_scenario, spell
from ptewalk.cosim.checks.live import ask
from ptewalk.cosim.checks.replay import profiles_of_version
from ptewalk.cosim.oracles.linux.kernels import find_kernel
from ptewalk.model.linux import Track
from ptewalk.model.profile import Profile
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.format import Scenario
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.report import replay
from ptewalk.model.scenario.runs import page_table
from ptewalk.model.scenario.verbs import Unsupported

__all__ = ["KERNELS", "SAME", "Seen", "Trial", "changes", "compare", "on_live", "on_model", "rows_of", "try_live"]

KERNELS: Final = ("linux-3.11", "linux-6.1", "linux-6.12", "linux-6.18", "linux-7.3")
"""What is compared when nothing is named."""
_UNKNOWN: Final = "not known"
"""A verb that the kernel, or what records it, has not."""
SAME: Final = " (=)"
"""A live kernel answered every step of a scenario as the model does."""
Pages = dict[tuple[int, int], str]
"""(process, page) to the letters of its pagemap entry, where that is not empty."""


@dataclass
class Seen:
    """What a kernel answered to one step, and what pagemap said after it."""

    answer: str
    pages: Pages = field(default_factory=dict)

    def letters(self, place: tuple[int, int]) -> str:
        """Of one page; empty where pagemap has nothing."""
        return self.pages.get(place, "")


def _answer(ret: int, errno: str | None, vals: Sequence[Any], scan: Mapping[str, Any] | None) -> str:
    if errno:
        return errno
    if scan is not None:
        return f"{ret} {scan['regions']}"
    told = [str(value) for value in vals if value not in ("ok", 0)]
    return ", ".join(dict.fromkeys(told)) or "ok"


def on_model(scenario: Scenario, profile: Profile) -> list[Seen]:
    """The answers of a profile's kernel; of verbs that it has not, none."""
    known = [step for step in scenario.steps if step.op["op"] in profile.verbs]
    run = Replay(replace(scenario, steps=known), profile, pagemap_v2=True, raw_tables=False)
    found: list[Seen] = []
    for step in scenario.steps:
        if step.op["op"] not in profile.verbs:
            found.append(Seen(_UNKNOWN, found[-1].pages if found else {}))
            continue
        try:
            outcome = run.step()
        except Unsupported as error:
            found.append(Seen(f"not followed: {error}", found[-1].pages if found else {}))
            break
        pages = {
            (who, page): flags
            for who, seen in outcome.state.items()
            for page, (flags, *_) in page_table(seen.pages).items()
        }
        found.append(Seen(_answer(outcome.ret, outcome.errno, outcome.vals, outcome.scan), pages))
    return found


def on_live(
    scenarios: Sequence[Scenario], kernel: str, progress: Callable[[int, int], None] | None
) -> tuple[str, dict[str, list[Seen]]]:
    """The version of a live kernel, and its answers by scenario."""
    live, done = ask(scenarios, kernel, progress, keep_going=True)
    answers: dict[str, list[Seen]] = {}
    for scenario in live:
        answers[scenario.name] = []
        for step in scenario.steps:
            told = step.recorded or {}
            pages = {
                (int(who), page): flags
                for who, seen in told["state"].items()
                for page, (flags, *_) in page_table(seen["pages"] or []).items()
            }
            answers[scenario.name].append(
                Seen(_answer(told["ret"], told["errno"], told["vals"], told.get("scan")), pages)
            )
    return done.kernel, answers


@dataclass
class Trial:
    """What a live kernel answered to scenarios, compared with the model.

    Attributes
    ----------
    profile : str
        What describes the kernel.
    version : str
        Such as 6.12.117.
    told : dict
        Scenario to what follows its cell: `SAME`, or the first difference.
    """

    profile: str
    version: str
    told: dict[str, str] = field(default_factory=dict)


def _knows(profile: Profile, scenario: Scenario) -> bool:
    """Has the kernel every verb of a scenario?"""
    return all(step.op["op"] in profile.verbs for step in scenario.steps)


def try_live(scenarios: Sequence[Scenario], kernel: str, progress: Callable[[int, int], None] | None) -> Trial:
    """Ask a live kernel the scenarios whose verbs it has; compare all that it answered with the model, step by step.

    Raises
    ------
    ToolError
        No profile describes the kernel, or it cannot be asked.
    """
    booted = find_kernel(kernel).version
    names = profiles_of_version(booted)
    if not names:
        raise ToolError(f"{kernel}: no profile describes Linux {booted}; name a kernel of a series that one does")
    profile = PROFILES[names[0]]
    asked = [scenario for scenario in scenarios if _knows(profile, scenario)]
    live, done = ask(asked, kernel, progress, keep_going=True)
    trial = Trial(profile.name, done.kernel, {name: f" (**no answer: {why}**)" for name, why in done.failures})
    for scenario in live:
        report = replay([scenario], profile.name, track=Track.OFF)
        wrong = report.first_difference or next(iter(report.skipped_scenarios.values()), None)
        trial.told[scenario.name] = SAME if wrong is None else f" (**live: {wrong}**)"
    return trial


def compare(scenario: Scenario, columns: Mapping[str, Sequence[Seen]]) -> list[dict[str, Any]]:
    """One row a step: the operation, each kernel's answer, and the pages that not all of them say the same of.

    Parameters
    ----------
    columns : mapping
        Kernel to what it answered; a kernel without an answer to a step has none from there on.

    Returns
    -------
    list of dict
        `step`, `op`, `answers` (kernel to text), `differs`, and `pages`: (process, first page, pages, kernel to
        letters).
    """
    rows = []
    for index, step in enumerate(scenario.steps):
        seen = {
            name: answers[index] if index < len(answers) else Seen("no answer") for name, answers in columns.items()
        }
        asked = {name: one for name, one in seen.items() if one.answer != "no answer"}
        pages = _differing(asked)
        told = {one.answer for one in asked.values()}
        rows.append(
            {
                "step": index,
                "op": spell({key: value for key, value in step.op.items() if value is not None}),
                "answers": {name: one.answer for name, one in seen.items()},
                "differs": len(told) > 1 or bool(pages),
                "pages": pages,
            }
        )
    return rows


def _differing(seen: Mapping[str, Seen]) -> list[list[Any]]:
    """[process, first page, pages, kernel to letters] of neighbours of which the kernels say something else."""
    found: list[list[Any]] = []
    for who, page in sorted({place for one in seen.values() for place in one.pages}):
        letters = {name: one.letters((who, page)) for name, one in seen.items()}
        if len({_soft(text) for text in letters.values()}) < 2:
            continue
        last = found[-1] if found else None
        if last and last[0] == who and last[1] + last[2] == page and last[3] == letters:
            last[2] += 1
        else:
            found.append([who, page, 1, letters])
    return found


def _soft(letters: str) -> str:
    """What every kernel tells: 3.11 has neither X nor W nor G."""
    return "".join(letter for letter in letters if letter in "PSFD")


def rows_of(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows for a table: a step, each kernel's answer, then a row for the pages that differ, marked by `!`."""
    table: list[dict[str, Any]] = []
    for row in rows:
        mark = "!" if row["differs"] else ""
        table.append({"step": f"{row['step']}{mark}", "what": row["op"]} | {n: row["answers"][n] for n in names})
        for who, first, count, letters in row["pages"]:
            what = f"  page {first}" + (f"..{first + count - 1}" if count > 1 else "") + (f" of {who}" if who else "")
            table.append({"step": "", "what": what} | {name: letters.get(name) or "-" for name in names})
    return table


def changes(scenarios: Sequence[Scenario], profiles: Sequence[Profile], trials: Sequence[Trial] = ()) -> str:
    """A Markdown table of scenarios: on each kernel the last answer, and the pages that are reported after it.

    Lost stores, other changes that are missed, and false reports are counted as `ptewalk accuracy` does. A scenario's
    `doc` is what stands in the last column, a colon, and a description. Where a live kernel was asked as well, its
    version stands at the head of its profile's column, and behind each cell whether it did as the model.
    """
    tried = {trial.profile: trial for trial in trials}
    heads = [p.name + (f" (live {tried[p.name].version})" if p.name in tried else "") for p in profiles]
    lines = [
        f"| scenario | {' | '.join(heads)} | right |",
        f"|---|{'---|' * len(profiles)}---|",
    ]
    for scenario in scenarios:
        cells = [
            _cell(scenario, p) + (tried[p.name].told.get(scenario.name, "") if p.name in tried else "")
            for p in profiles
        ]
        steps = "; ".join(spell({k: v for k, v in step.op.items() if v is not None}) for step in scenario.steps)
        right, _, why = scenario.doc.partition(": ")
        lines.append(f"| `{steps}`: {why} | {' | '.join(cells)} | {right} |")
    return "\n".join(lines) + "\n"


def _cell(scenario: Scenario, profile: Profile) -> str:
    """A kernel's cell of `changes`."""
    seen = on_model(scenario, profile)[-1]
    if not _knows(profile, scenario):
        return "-"
    whole, before = Accuracy(profile.name), Accuracy(profile.name)
    count_scenario(scenario, profile, whole)
    count_scenario(replace(scenario, steps=scenario.steps[:-1]), profile, before)
    lost, missed, false = (
        getattr(whole, name) - getattr(before, name) for name in ("lost_stores", "false_negatives", "false_positives")
    )
    words = [] if seen.answer == "ok" or seen.answer.isdecimal() else [seen.answer]
    words.append(f"{sum('D' in letters for letters in seen.pages.values())} reported")
    words += [f"**{lost} lost**"] if lost else []
    words += [f"**{missed - lost} missed**"] if missed > lost else []
    words += [f"{false} false"] if false else []
    return ", ".join(words)
