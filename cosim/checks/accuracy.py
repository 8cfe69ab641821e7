"""`ptewalk accuracy`: how often a kernel reports a page that did not change, and misses one that did.

Each generated scenario runs on the golden model of a kernel on a plain MMU. After each step the soft-dirty bit of every
page that an area maps is compared with what may have changed since the last clear: the page was stored to by a user
access, mapped, moved to, or its contents were replaced. That is what an `exact` machine reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from ptewalk.cosim.formats.scenarios import Line, scenario_lines
from ptewalk.cosim.stimulus.scenarios import generated
from ptewalk.cosim.stimulus.shrink import shrink
from ptewalk.cosim.stimulus.themes import known_themes
from ptewalk.model.proc import pagemap
from ptewalk.model.profile import Profile
from ptewalk.model.profiles import EXACT, MODERN
from ptewalk.model.scenario.format import Scenario
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.verbs import Unsupported
from ptewalk.model.state.machine import Mm

__all__ = ["KERNELS", "KINDS", "Accuracy", "accuracy", "common_scenarios", "count_scenario", "markdown", "spell"]

KERNELS: Final = ("linux-seed", "linux-3.11", "linux-6.1", "linux-6.12", "linux-6.18", "linux-7.3")
KINDS: Final = {
    "false_positives": "reported, not changed",
    "false_negatives": "changed, not reported",
    "lost_stores": "stored to, not reported, outside hugetlb mappings",
}
"""Kind of error to what it means; lost stores are false negatives too. No kernel tracks hugetlb mappings by page."""
_GIGANTIC: Final = ("directory", "gigantic")
_CANDIDATES: Final = 6
"""Shortest scenarios of a kind that are shrunk."""
_ATTEMPTS: Final = 300


@dataclass
class Accuracy:
    """Counts for one kernel; those of pages count a page once for each step.

    Attributes
    ----------
    profile : str
    scenarios, steps : int
    skipped : int
        Steps that the model cannot follow.
    pages : int
        Pages of areas.
    changed : int
        Of those, the ones that may have changed since the last clear.
    false_positives, false_negatives, lost_stores : int
        See `KINDS`.
    scenarios_with : dict
        Kind to scenarios in which it is seen.
    verbs : dict
        Kind to the verbs after which there were more such pages than before, and how many more.
    shortest : dict
        Kind to the shortest scenario found, as lines of the format.
    """

    profile: str
    scenarios: int = 0
    steps: int = 0
    skipped: int = 0
    pages: int = 0
    changed: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    lost_stores: int = 0
    scenarios_with: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    verbs: dict[str, dict[str, int]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    shortest: dict[str, list[Line]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As an object for ``--json``, with the shares of false positives and negatives in percent."""
        clean = self.pages - self.changed
        verbs = {kind: dict(sorted(found.items(), key=lambda one: -one[1])) for kind, found in self.verbs.items()}
        return asdict(self) | {
            "verbs": verbs,
            "false_positive_percent": _percent(self.false_positives, clean),
            "false_negative_percent": _percent(self.false_negatives, self.changed),
        }


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 3) if whole else None


def _compare(mm: Mm) -> dict[str, int]:
    """Counts over one address space."""
    counts = dict.fromkeys(("pages", "changed", *KINDS), 0)
    for area in mm.areas:
        size = area.end - area.start
        reported = (pagemap.read(mm, area.start, size) & pagemap.SOFT_DIRTY) != 0
        changed, stored = np.zeros(size, bool), np.zeros(size, bool)
        for marks, pages in ((changed, mm.changed), (stored, mm.stored)):
            for first, last in pages.within(area.start, area.end):
                marks[first - area.start : last - area.start] = True
        counts["pages"] += size
        counts["changed"] += int(changed.sum())
        counts["false_positives"] += int((reported & ~changed).sum())
        counts["false_negatives"] += int((changed & ~reported).sum())
        counts["lost_stores"] += 0 if area.huge_level else int((stored & ~reported).sum())
    return counts


def count_scenario(scenario: Scenario, profile: Profile, into: Accuracy, *, exact: bool = False) -> set[str]:
    """Run a scenario under a profile and add its counts; the kinds of errors that were seen."""
    run = Replay(scenario, profile, pagemap_v2=True, raw_tables=False, watch=True, exact=exact)
    seen: set[str] = set()
    before = dict.fromkeys(KINDS, 0)
    into.scenarios += 1
    into.steps += len(scenario.steps)
    for index, step in enumerate(scenario.steps):
        try:
            run.step()
        except Unsupported:
            into.skipped += len(scenario.steps) - index
            break
        now = dict.fromkeys(KINDS, 0)
        for process in run.kernel.processes.values():
            for name, count in _compare(process.mm).items():
                setattr(into, name, getattr(into, name) + count)
                if name in KINDS:
                    now[name] += count
        for kind in KINDS:
            if now[kind]:
                seen.add(kind)
            if now[kind] > before[kind]:
                verbs, verb = into.verbs[kind], step.op["op"]
                verbs[verb] = verbs.get(verb, 0) + now[kind] - before[kind]
        before = now
    for kind in seen:
        into.scenarios_with[kind] += 1
    return seen


def common_scenarios(count: int, seed: int, profiles: Sequence[Profile], themes: Sequence[str] = ()) -> list[Scenario]:
    """Generated scenarios of what all the kernels know; by default without the themes whose mappings are of 1 GiB.

    Those would be nearly all of the pages counted. Raises `ToolError` as `generated` does.
    """
    known = [set(known_themes(profile)) - set(_GIGANTIC) for profile in profiles]
    oldest = min(profiles, key=lambda profile: (profile in MODERN, len(known_themes(profile))))
    common = [name for name in known_themes(oldest) if all(name in names for names in known)]
    return generated(count, seed, oldest, themes or common)


def accuracy(
    scenarios: Sequence[Scenario],
    profile: Profile,
    progress: Callable[[int, int], None] | None = None,
    *,
    exact: bool = False,
) -> Accuracy:
    """Counts over scenarios, with the shortest one for each kind of error.

    Parameters
    ----------
    scenarios : sequence of Scenario
    profile : Profile
    exact : bool
        The machine is exact.
    progress : callable or None
        Called with (scenarios done, scenarios) after each.
    """
    result = Accuracy(EXACT if exact else profile.name)
    found: dict[str, list[Scenario]] = {kind: [] for kind in KINDS}
    for number, scenario in enumerate(scenarios, 1):
        for kind in count_scenario(scenario, profile, result, exact=exact):
            found[kind].append(scenario)
        if progress:
            progress(number, len(scenarios))
    for kind, candidates in found.items():
        if candidates:
            candidates.sort(key=lambda scenario: len(scenario.steps))
            small = [shrink(one, _shows(kind, profile, exact), attempts=_ATTEMPTS) for one in candidates[:_CANDIDATES]]
            result.shortest[kind] = scenario_lines(min(small, key=_size))
    return result


def _shows(kind: str, profile: Profile, exact: bool) -> Callable[[Scenario], bool]:
    return lambda scenario: kind in count_scenario(scenario, profile, Accuracy(profile.name), exact=exact)


def _size(scenario: Scenario) -> tuple[int, int]:
    """Steps, then pages."""
    return len(scenario.steps), sum(step.op.get("n") or 0 for step in scenario.steps)


def spell(operation: dict[str, Any]) -> str:
    """An operation in short: verb, pages, and what is not usual."""
    usual = {"who": 0, "step": 1, "prot": "rw", "kind": "anon", "flags": [], "file_page": 0, "target": 0}
    words = [operation["op"]]
    page, size = operation.get("page"), operation.get("n")
    if page is not None:
        words.append(f"{page}" if size in (None, 1) else f"{page}..{page + size - 1}")
    for key, value in operation.items():
        if key not in ("op", "page", "n") and value != usual.get(key):
            words.append(f"{key}={'+'.join(value) if isinstance(value, list) else value}")
    return " ".join(words)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Results of `Accuracy.as_json` as a Markdown table, and the shortest scenario of each kind."""
    lines = [
        "| kernel | pages | changed | false positives | % of unchanged | false negatives | % of changed | lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = ("profile", "pages", "changed", "false_positives", "false_positive_percent")
    for row in rows:
        values = [row[name] for name in (*names, "false_negatives", "false_negative_percent", "lost_stores")]
        lines.append(f"| {' | '.join(map(str, values))} |")
    for kind, meaning in KINDS.items():
        lines += ["", f"{kind.replace('_', ' ').capitalize()} ({meaning}):", ""]
        for row in rows:
            if kind not in row["shortest"]:
                lines.append(f"- {row['profile']}: none.")
                continue
            after = ", ".join(f"{verb} {pages}" for verb, pages in row["verbs"][kind].items())
            steps = "; ".join(spell(line["op"]) for line in row["shortest"][kind][1:])
            lines.append(f"- {row['profile']}: in {row['scenarios_with'][kind]} scenarios, after {after}.")
            lines.append(f"  Shortest: `{steps}`")
    return "\n".join(lines) + "\n"
