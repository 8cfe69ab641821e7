"""Seeded random scenarios, guided towards what makes Linux's soft-dirty hard: merges, huge pages, forks, moves, swap.

A scenario is drawn from one theme. A sketch of each process's mappings steers the choice of ranges, so that most
operations hit something; it is a guess, never an expectation: what an operation answers is for a kernel or the model
to say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.formats.scenarios import DEFAULT_BASE, Op, ScenarioRequest, as_scenario
from ptewalk.cosim.stimulus.themes import GIGANTIC, SELDOM, THEMES, Theme, known_themes, knows
from ptewalk.model.profile import Profile
from ptewalk.model.scenario.format import Scenario
from ptewalk.model.scenario.verbs import arguments
from ptewalk.model.x86 import LEVELS_4

__all__ = ["generated", "scenario"]

FEWEST_STEPS, MOST_STEPS = 3, 15
FIVE_LEVEL_BASES: Final = (DEFAULT_BASE, 1 << 47, 1 << 52)
"""Where scenarios with five levels play: below and above what four levels reach."""
_ODD_SCANS: Final[tuple[dict[str, int], ...]] = (
    *({"vec_len": 0}, {"vec_len": 1}, {"vec_len": 2}, {"vec_len": 3}, {"vec": 0}, {"vec": 1 << 62}),
    *({"sb": 8}, {"eb": 8}, {"n": -1}, {"n": 0}, {"size": 88}, {"size": 104}, {"flags": 4}, {"fd": -1}),
    *({"category_mask": 256}, {"category_inverted": 512}, {"return_mask": 256}, {"end": 1 << 62}),
)
"""Arguments of PAGEMAP_SCAN at the edge of what is valid, or beyond it."""


@dataclass(slots=True)
class _Area:
    """A guessed mapping."""

    page: int
    count: int
    kind: str


@dataclass(slots=True)
class _Process:
    areas: list[_Area] = field(default_factory=list)
    pinned: list[tuple[int, int]] = field(default_factory=list)
    user: bool = False


class _Writer:
    """Draws one scenario."""

    def __init__(self, rng: random.Random, theme: Theme) -> None:
        self.rng, self.theme = rng, theme
        self.processes = {0: _Process()}
        self.next_child = 1
        self.files: dict[str, int] = {}
        self.ops: list[Op] = []
        self.kinds, self.advices = tuple(theme.kinds), tuple(theme.advice)
        self.base, self.levels = DEFAULT_BASE, LEVELS_4

    def draw(self) -> list[Op]:
        steps = round(self.rng.triangular(FEWEST_STEPS, MOST_STEPS, MOST_STEPS - 2))
        verbs = dict(self.theme.verbs)
        if self.theme.crossed:
            self.cross(verbs, *self.theme.crossed)
        else:
            self.prologue()
        while len(self.ops) < steps:
            verb = self.rng.choices(list(verbs), list(verbs.values()))[0]
            draw: Callable[[int], None] = getattr(self, verb)
            draw(self.rng.choice(list(self.processes)))
        return self.ops

    def cross(
        self, verbs: dict[str, int], kinds: Sequence[str], protections: Sequence[str], levels: Sequence[int]
    ) -> None:
        """One of each: memory, protection, levels; a verb, or an advice, that comes often; and the first steps."""
        rng = self.rng
        kind, protection, self.levels = rng.choice(list(kinds)), rng.choice(list(protections)), rng.choice(list(levels))
        if self.levels > LEVELS_4:
            self.base = rng.choice(FIVE_LEVEL_BASES)
        self.kinds = (kind, kind, kind, rng.choice(list(kinds)))
        for verb in ("write", "read", "clear_refs", "madvise", "mprotect"):
            verbs[verb] *= 3
        drawn = rng.choice((*verbs, *self.theme.advice))
        if drawn in verbs:
            verbs[drawn] += 20
        else:
            verbs["madvise"] += 16
            self.advices = (drawn,) * len(self.theme.advice) + tuple(self.theme.advice)
        named = ("uffd_reg", "uffd_wp", "uffd_unwp") if protection == "sync" else ("uffd_async_reg", "uffd_async_wp")
        for verb in [verb for verb in verbs if verb.startswith("uffd")]:
            if protection == "none" or verb not in named:
                verbs[verb] = int(protection != "none")
            else:
                verbs[verb] += 4
        self.mmap(0)
        area = self.processes[0].areas[0]
        whole = {"page": area.page, "n": area.count}
        if protection == "async":
            self.uffd_async_open(0)
        early = rng.random() < 0.3
        if protection != "none" and early:
            self.protect(protection, whole)
        if rng.random() < 0.9:
            self.put(0, "write" if rng.random() < 0.8 else "read", **self.spread(area))
        if protection != "none" and not early:
            self.protect(protection, whole)
        if rng.random() < 0.4:
            self.put(0, "clear_refs", value="4", target=0)

    def protect(self, protection: str, whole: dict[str, int]) -> None:
        """Register a range for write-protection, and mostly protect it."""
        name = "uffd" if protection == "sync" else "uffd_async"
        self.put(0, f"{name}_reg", **whole)
        if self.rng.random() < 0.85:
            self.put(0, f"{name}_wp", **whole)

    def spread(self, area: _Area) -> dict[str, int]:
        """Accesses of a page in each unit, or of a few pages."""
        if self.rng.random() < 0.6:
            return {"page": area.page, "n": area.count, "step": self.theme.unit}
        return {"page": area.page + self.rng.randrange(area.count), "n": self.rng.choice((1, 3, 8)), "step": 1}

    def prologue(self) -> None:
        """Something mapped; often written, cleared, and prepared as the theme needs it."""
        rng, verbs = self.rng, self.theme.verbs
        advice = self.theme.advice if self.theme.prepared else ()
        for _ in range(rng.choice((1, 1, 2))):
            self.mmap(0)
        area = self.processes[0].areas[0]
        if "HUGEPAGE" in advice and self.theme.unit > 1:
            self.put(0, "madvise", page=area.page, n=area.count, advice="HUGEPAGE")
        if "MERGEABLE" in advice:
            self.put(0, "madvise", page=area.page, n=area.count, advice="MERGEABLE")
        if "uffd_reg" in verbs and rng.random() < 0.5:
            self.put(0, "uffd_reg", page=area.page, n=area.count)
        if "uffd_async_reg" in verbs and rng.random() < 0.5:
            self.uffd_async_open(0)
            self.put(0, "uffd_async_reg", page=area.page, n=area.count)
        if rng.random() < 0.7:
            verb = "write" if rng.random() < 0.8 else "read"
            self.put(0, verb, page=area.page, n=min(area.count, rng.choice((1, 4, 16))), step=1)
        if rng.random() < 0.5:
            self.put(0, "clear_refs", value="4", target=0)
        if "PAGEOUT" in advice and self.theme.unit == 1 and rng.random() < 0.6:
            self.put(0, "madvise", page=area.page, n=area.count, advice="PAGEOUT")

    def put(self, who: int, verb: str, **given: object) -> None:
        op = {"who": who, "op": verb, **given}
        arguments(op)  # what is drawn is what a reader takes
        self.ops.append(op)

    # ---- ranges ----

    def area(self, who: int) -> _Area:
        """A mapping of the process, or somewhere in the window where it has none."""
        areas = self.processes[who].areas
        if areas and self.rng.random() < 0.96:
            return self.rng.choice(areas[-4:])
        return _Area(self.rng.randrange(self.theme.window), self.rng.choice(list(self.theme.counts)), "anon")

    def part(self, who: int) -> tuple[int, int]:
        """A range: a whole mapping, a part of one, or one that reaches beyond it."""
        area, rng = self.area(who), self.rng
        unit = self.theme.unit
        if unit > 1 and rng.random() < 0.6:
            first = area.page + unit * rng.randrange(max(1, area.count // unit))
            return first, min(unit, area.count)
        draw = rng.random()
        if draw < 0.3:
            return area.page, area.count
        if draw < 0.94:
            first = rng.randrange(area.count)
            return area.page + first, rng.randint(1, min(area.count - first, 64))
        return area.page + rng.randrange(area.count), rng.randint(1, area.count + 4)

    def touched(self, who: int) -> tuple[int, int]:
        page, count = self.part(who)
        return page, min(count, self.rng.choice((1, 2, 3, 8, 16)))

    def place(self, count: int) -> int:
        """Where a new mapping goes: often right beside an older one."""
        rng = self.rng
        areas = [area for process in self.processes.values() for area in process.areas]
        if areas and rng.random() < 0.7:
            area = rng.choice(areas)
            ends = (area.page + area.count, area.page - count)
            page = rng.choice((*ends, *ends, *ends, area.page, area.page + area.count + 1))
            if page >= 0:
                return page
        step = self.theme.unit if self.theme.unit > 1 and rng.random() < 0.8 else 1
        return rng.randrange(max(1, self.theme.window // step)) * step

    # ---- verbs ----

    def mmap(self, who: int) -> None:
        rng = self.rng
        count, kind = rng.choice(list(self.theme.counts)), rng.choice(self.kinds)
        page = self.place(count)
        if "hugetlb" in kind:
            page -= page % self.theme.unit
        advised = kind == "huge"
        kind = "anon" if advised else kind
        file_page = 0
        if kind[-1].isdigit():
            file_page = page % 1024 if rng.random() < 0.7 else rng.choice((0, 0, 4, 16))
        locked = 0.25 if self.theme is THEMES["reuse"] else 0.02
        flags = [flag for flag, chance in (("populate", 0.1), ("locked", locked)) if rng.random() < chance]
        if count >= GIGANTIC:
            flags = []
        if self.theme is THEMES["stack"] and rng.random() < 0.6:
            flags = ["growsdown"]
        if self.theme.crossed and rng.random() < 0.2:
            flags.append("noreserve")
        prot = rng.choices(("rw", "r", "rwx", "rx", "-", "w"), (80, 10, 2, 2, 4, 2))[0]
        self.put(who, "mmap", page=page, n=count, prot=prot, kind=kind, file_page=file_page, flags=flags)
        if advised:
            self.put(who, "madvise", page=page, n=count, advice="HUGEPAGE")
        self.forget(who, page, count)
        self.processes[who].areas.append(_Area(page, count, kind))

    def forget(self, who: int, page: int, count: int) -> None:
        """Cut a range out of the sketch."""
        process, end, left = self.processes[who], page + count, []
        for area in process.areas:
            last = area.page + area.count
            if last <= page or area.page >= end:
                left.append(area)
                continue
            if area.page < page:
                left.append(_Area(area.page, page - area.page, area.kind))
            if last > end:
                left.append(_Area(end, last - end, area.kind))
        process.areas = left

    def munmap(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "munmap", page=page, n=count)
        self.forget(who, page, count)

    def write(self, who: int) -> None:
        if self.theme is THEMES["stack"] and self.rng.random() < 0.4:
            area = self.area(who)
            self.put(who, "write", page=max(0, area.page - self.rng.randint(1, 6)), n=1, step=1)
            return
        page, count = self.touched(who)
        step = self.rng.choice((1, 1, 1, 2)) if count > 2 else 1
        self.put(who, "write", page=page, n=count, step=step)

    def read(self, who: int) -> None:
        page, count = self.touched(who)
        self.put(who, "read", page=page, n=count, step=1)

    def mem_write(self, who: int) -> None:
        page, count = self.touched(who)
        self.put(who, "mem_write", page=page, n=min(count, 4))

    def mem_read(self, who: int) -> None:
        page, count = self.touched(who)
        self.put(who, "mem_read", page=page, n=min(count, 4))

    def syscall_read_into(self, who: int) -> None:
        self.put(who, "syscall_read_into", page=self.touched(who)[0])

    def mprotect(self, who: int) -> None:
        page, count = self.part(who)
        weights = (30, 25, 40, 4, 1) if self.theme is THEMES["none"] else (40, 50, 6, 3, 1)
        prot = self.rng.choices(("r", "rw", "-", "rx", "rwx"), weights)[0]
        self.put(who, "mprotect", page=page, n=count, prot=prot)

    def mremap(self, who: int) -> None:
        rng = self.rng
        area = self.area(who)
        page, count = area.page, area.count
        if rng.random() < 0.5:
            page += rng.randrange(count)
            count = rng.randint(1, area.page + area.count - page)
            unit = self.theme.unit
            if unit > 1 and rng.random() < 0.6:
                page, count = area.page + (page - area.page) // unit * unit, min(unit, area.count)
        new_count = count if rng.random() < 0.65 else max(1, count + rng.choice((-4, -2, -1, 1, 2, 4, 8)))
        draw = rng.random()
        if draw < 0.7:
            flags = ["MAYMOVE", "FIXED"]
        elif draw < 0.85:
            flags, new_count = ["MAYMOVE", "FIXED", "DONTUNMAP"], count
        else:
            flags = []
        if rng.random() < 0.03:
            count = 0
        new_page = 0
        if flags:
            new_page = self.place(new_count)
            if self.theme.unit > 1 and rng.random() < 0.6:
                new_page += (page - new_page) % self.theme.unit
        self.put(who, "mremap", page=page, n=count, new_n=new_count, flags=flags, new_page=new_page)
        if not flags:
            area.count = max(1, area.count + new_count - count)
            return
        if "DONTUNMAP" not in flags:
            self.forget(who, page, count)
        self.forget(who, new_page, new_count)
        self.processes[who].areas.append(_Area(new_page, new_count, area.kind))

    def madvise(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "madvise", page=page, n=count, advice=self.rng.choice(self.advices))

    def mlock(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "mlock", page=page, n=count)

    def munlock(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "munlock", page=page, n=count)

    def clear_refs(self, who: int) -> None:
        value = self.rng.choices(("4", "1", "2", "3", "5", "6"), (90, 3, 2, 2, 2, 1))[0]
        target = who if self.rng.random() < 0.8 else self.rng.choice(list(self.processes))
        self.put(who, "clear_refs", value=value, target=target)

    def fork(self, who: int) -> None:
        if len(self.processes) < 3:
            child, self.next_child = self.next_child, self.next_child + 1
            self.put(who, "fork", child=child)
            parent = self.processes[who]
            areas = [_Area(area.page, area.count, area.kind) for area in parent.areas]
            self.processes[child] = _Process(areas, [], parent.user)

    def exit(self, who: int) -> None:
        if len(self.processes) > 1:
            self.put(who, "exit")
            del self.processes[who]

    def setuid(self, who: int) -> None:
        if who and not self.processes[who].user:
            self.put(who, "setuid")
            self.processes[who].user = True

    def uffd_reg(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "uffd_reg", page=page, n=count)

    def uffd_wp(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "uffd_wp", page=page, n=count)

    def uffd_unwp(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "uffd_unwp", page=page, n=count)

    def uffd_async_open(self, who: int) -> None:
        self.put(who, "uffd_async_open", page=None, n=None)

    def uffd_async_reg(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "uffd_async_reg", page=page, n=count)

    def uffd_async_unreg(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "uffd_async_unreg", page=page, n=count)

    def uffd_async_unwp(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "uffd_async_unwp", page=page, n=count)

    def uffd_async_wp(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "uffd_async_wp", page=page, n=count)

    def pin(self, who: int) -> None:
        process = self.processes[who]
        page, count = self.touched(who)
        if len(process.pinned) < 2 and not any(page == pinned for pinned, _ in process.pinned):
            process.pinned.append((page, count))
            self.put(who, "pin", page=page, n=count)

    def unpin(self, who: int) -> None:
        process = self.processes[who]
        if process.pinned:
            page, count = process.pinned.pop(self.rng.randrange(len(process.pinned)))
            self.put(who, "unpin", page=page, n=count)

    def file_write(self, who: int) -> None:
        self.put(who, "file_write", file=self.rng.randrange(2), file_page=self.rng.choice((0, 1, 2, 5, 17)))

    def file_read(self, who: int) -> None:
        self.put(who, "file_read", file=self.rng.randrange(2), file_page=self.rng.choice((0, 1, 2, 5, 17)))

    def ftruncate(self, who: int) -> None:
        self.put(who, "ftruncate", file=self.rng.randrange(2), n=self.rng.choice((0, 1, 4, 8, 20, 8192)))

    def pkey_mprotect(self, who: int) -> None:
        page, count = self.part(who)
        prot = self.rng.choices(("rw", "r", "-"), (70, 20, 10))[0]
        self.put(who, "pkey_mprotect", page=page, n=count, prot=prot, key=self.rng.choice((1, 1, 2, 3, 0)))

    def wrpkru(self, who: int) -> None:
        self.put(who, "wrpkru", key=self.rng.choice((1, 1, 2, 3)), rights=self.rng.choice((0, 0, 1, 2)))

    def ksm_scan(self, who: int) -> None:
        self.put(who, "ksm_scan", use_zero_pages=self.rng.choice((0, 0, 1)))

    def same(self, who: int) -> None:
        page, count = self.touched(who)
        self.put(who, "same", page=page, n=count)

    def ksm(self, who: int) -> None:
        self.put(who, "ksm")

    def remapfile(self, who: int) -> None:
        page, count = self.part(who)
        self.put(who, "remapfile", page=page, n=count, file_page=self.rng.choice((0, 1, 4, 9, 16)))

    def sync(self, who: int) -> None:
        self.put(who, "sync", file=4)

    def swapoff(self, who: int) -> None:
        self.put(who, "swapoff")
        self.put(who, "swapon")

    def clearraw(self, who: int) -> None:
        value = self.rng.choice(("4", "4\\n", "4\\0junk", " 4 ", "04", "+4", "0x4", "", "4 5", "99999999999"))
        self.put(who, "clearraw", value=value, target=who)

    def move_pages(self, who: int) -> None:
        page, count = self.touched(who)
        self.put(who, "move_pages", page=page, n=count, node=self.rng.choice((0, 1, 1)))

    def pagemap_scan(self, who: int) -> None:
        page, count = self.part(who)
        masks = {}
        for name, chance in (("category_mask", 0.5), ("category_anyof_mask", 0.2), ("category_inverted", 0.3)):
            if self.rng.random() < chance:
                masks[name] = sum(1 << bit for bit in self.rng.sample(range(8), self.rng.choice((1, 1, 2))))
        if self.rng.random() < 0.3:
            masks["return_mask"] = self.rng.choice((0, 2, 8, 128, 130))
        if self.rng.random() < 0.25:
            masks["flags"] = self.rng.choice((1, 2, 3))
        if self.rng.random() < 0.2:
            masks["max_pages"] = self.rng.randint(1, 8)
        odd = self.rng.choice(_ODD_SCANS) if self.rng.random() < 0.15 else {}
        self.put(who, "pagemap_scan", **({"page": page, "n": count} | masks | odd))


def scenario(seed: int, number: int, theme: str) -> ScenarioRequest:
    """Scenario `number` of the random run `seed`; the same three give the same one, and no two runs share one.

    Its name says how to draw it again: ``ptewalk replay --generate 1 --seed SEED --theme THEME --first NUMBER``.
    """
    writer = _Writer(random.Random(f"{theme}:{seed}:{number}"), THEMES[theme])
    ops = writer.draw()
    doc = f"random, theme {theme}, seed {seed}, number {number}"
    return ScenarioRequest(f"{theme}_{seed}_{number:06d}", ops, doc, writer.base, writer.levels > LEVELS_4)


def generated(count: int, seed: int, profile: Profile, themes: Sequence[str] = (), *, first: int = 0) -> list[Scenario]:
    """`count` random scenarios of what the profile's kernel knows; the same arguments give the same ones.

    Parameters
    ----------
    count, seed : int
        How many, and the run's seed. Both it and the number of each stand in its name.
    profile : Profile
        Operations that its kernel does not know are left out, and so are themes about them.
    themes : sequence of str
        Names from `THEMES`; empty (default): all that the kernel knows.
    first : int
        Number of the first.

    Raises
    ------
    ToolError
        No such theme, or one about what the kernel does not know.
    """
    known = known_themes(profile)
    for name in themes:
        if name not in known:
            why = "no theme" if name not in THEMES else f"{profile.name} does not know the operations of theme"
            raise ToolError(f"{why} {name!r}: choose one of {', '.join(known)}")
    if not themes:
        rounds = max(SELDOM.values())
        themes = [name for turn in range(rounds) for name in known if turn % SELDOM.get(name, 1) == 0]
    drawn = [scenario(seed, i, themes[i % len(themes)]) for i in range(first, first + count)]
    return [
        as_scenario(replace(made, ops=[operation for operation in made.ops if knows(profile, operation["op"])]))
        for made in drawn
    ]
