"""Themes of random scenarios: which verbs, mappings and sizes each is made of, and which kernels know them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ptewalk.model.mm.madvise import knows_advice
from ptewalk.model.profile import Profile
from ptewalk.model.profiles import VERBS_3_11

__all__ = ["GIGANTIC", "HUGE", "SELDOM", "THEMES", "Theme", "known_themes"]

HUGE: Final = 512
"""Pages that a page table maps."""
GIGANTIC: Final = 262144
"""Pages that a page directory maps."""


@dataclass(frozen=True, slots=True)
class Theme:
    """What a kind of scenario is made of.

    Attributes
    ----------
    verbs : dict
        Verb to weight.
    window : int
        Pages that it plays in.
    kinds : sequence of str
        Mapping kinds it draws from.
    counts : sequence of int
        Sizes of mappings, in pages.
    advice : sequence of str
        madvise advices it draws from.
    unit : int
        Ranges are often aligned to this many pages: those of a page table, or of a page directory.
    old_only : bool
        Has verbs that only 3.11 is asked.
    new_advice : str or None
        Advice that it is about; kernels that do not know it are not asked.
    prepared : bool
        The first mapping gets the advice that the theme is about.
    crossed : tuple of sequences
        What is drawn for a scenario as a whole, one of each: the kind of its memory, what protects it, the levels of
        its page tables. Its verbs and advices are weighted alike but for one, which the scenario is about.
    """

    verbs: dict[str, int]
    window: int = 64
    kinds: Sequence[str] = ("anon",)
    counts: Sequence[int] = (1, 2, 4, 8, 16)
    advice: Sequence[str] = ("DONTNEED",)
    unit: int = 1
    old_only: bool = False
    new_advice: str | None = None
    prepared: bool = True
    crossed: tuple[Sequence[str], Sequence[str], Sequence[int]] | None = None


_COMMON: Final = {"mmap": 4, "munmap": 3, "write": 20, "read": 8, "clear_refs": 14, "mprotect": 6}
_FILES: Final = ("s0", "p0", "s1", "p1", "sanon")

THEMES: Final[dict[str, Theme]] = {
    "merge": Theme(
        _COMMON | {"mmap": 12, "mprotect": 14, "madvise": 6, "mremap": 6, "mlock": 2, "munlock": 2},
        window=32,
        kinds=("anon", "anon", "anon", "s0", "p0"),
        advice=("DONTFORK", "DOFORK", "RANDOM", "NORMAL", "WIPEONFORK", "KEEPONFORK", "NOHUGEPAGE"),
    ),
    "shared": Theme(
        {"mmap": 10, "read": 14, "write": 14, "clear_refs": 5, "mprotect": 22, "madvise": 4, "mlock": 2, "munlock": 2},
        window=8,
        kinds=("s0",),
        counts=(2, 4),
        advice=("DONTFORK", "DOFORK", "RANDOM", "NORMAL"),
    ),
    "anon": Theme(
        _COMMON
        | {"mremap": 8, "madvise": 8, "mem_write": 3, "mem_read": 1, "syscall_read_into": 2, "mlock": 2, "munlock": 1},
        advice=("DONTNEED", "FREE", "COLD", "POPULATE_READ", "POPULATE_WRITE", "WILLNEED", "DONTNEED_LOCKED", "REMOVE"),
    ),
    "move": Theme(_COMMON | {"mremap": 22, "madvise": 2}, window=48, kinds=("anon", "anon", "sanon", "s0", "p0")),
    "fork": Theme(
        _COMMON | {"fork": 10, "exit": 4, "mremap": 4, "madvise": 4, "setuid": 2, "mem_write": 2},
        window=32,
        kinds=("anon", "anon", "sanon", "s0", "p0"),
        advice=("DONTFORK", "DOFORK", "WIPEONFORK", "KEEPONFORK", "DONTNEED", "FREE"),
    ),
    "reuse": Theme(
        {"mmap": 3, "write": 26, "read": 2, "clear_refs": 6, "mprotect": 2, "fork": 10, "exit": 4, "madvise": 12}
        | {"mlock": 5, "munlock": 3, "mem_write": 4, "mem_read": 4, "munmap": 1, "mremap": 1},
        window=24,
        kinds=("anon", "anon", "anon", "p0"),
        counts=(1, 2, 4, 20),
        advice=("COLD", "COLD", "FREE", "FREE", "POPULATE_READ", "POPULATE_WRITE", "PAGEOUT", "DONTNEED", "WILLNEED"),
    ),
    "file": Theme(
        _COMMON
        | {"file_write": 4, "file_read": 2, "ftruncate": 3, "madvise": 5, "mremap": 5, "fork": 2, "mem_write": 2},
        kinds=_FILES,
        advice=("DONTNEED", "REMOVE", "POPULATE_READ", "POPULATE_WRITE", "FREE", "WILLNEED"),
    ),
    "huge": Theme(
        _COMMON | {"madvise": 14, "mremap": 7, "fork": 3, "mem_write": 1, "mlock": 1},
        window=2048,
        counts=(512, 512, 1024, 1536, 600),
        advice=("HUGEPAGE", "HUGEPAGE", "HUGEPAGE", "COLLAPSE", "DONTNEED", "FREE", "NOHUGEPAGE", "COLD", "PAGEOUT"),
        unit=HUGE,
    ),
    "table": Theme(
        _COMMON | {"mremap": 20},
        window=4096,
        kinds=("anon", "anon", "s0", "p0", "sanon"),
        counts=(512, 1024, 520, 515, 1030, 300),
        unit=HUGE,
    ),
    "swap": Theme(
        _COMMON | {"madvise": 16, "fork": 4, "exit": 1, "mremap": 5, "uffd_reg": 1, "uffd_wp": 1},
        kinds=("anon", "anon", "anon", "sanon", "s0"),
        advice=("PAGEOUT", "PAGEOUT", "PAGEOUT", "DONTNEED", "FREE", "WILLNEED", "COLD"),
    ),
    "uffd": Theme(
        _COMMON | {"uffd_reg": 10, "uffd_wp": 14, "uffd_unwp": 6, "fork": 3, "mremap": 4, "madvise": 4, "mem_write": 2},
        kinds=("anon", "anon", "s0", "sanon"),
        advice=("DONTNEED", "PAGEOUT", "FREE"),
    ),
    "pin": Theme(
        _COMMON | {"pin": 10, "unpin": 4, "fork": 6, "mremap": 3, "madvise": 3},
        kinds=("anon", "anon", "p0", "sanon"),
        advice=("DONTNEED", "PAGEOUT", "FREE"),
    ),
    "hugetlb": Theme(
        _COMMON | {"fork": 4, "mremap": 3, "madvise": 3, "mem_write": 1},
        window=2048,
        kinds=("hugetlb", "hugetlb", "shugetlb"),
        counts=(512, 512, 1024),
        unit=HUGE,
    ),
    "key": Theme(
        _COMMON | {"pkey_mprotect": 12, "wrpkru": 7, "fork": 3, "mremap": 4, "mem_write": 1, "madvise": 2},
        window=32,
        advice=("DONTNEED", "PAGEOUT"),
    ),
    "none": Theme(_COMMON | {"mprotect": 18, "mem_write": 3, "mremap": 4, "madvise": 3, "fork": 2}, window=32),
    "stack": Theme(_COMMON | {"mmap": 8, "mremap": 3}, window=96, kinds=("anon",)),
    "ksm": Theme(
        _COMMON | {"ksm_scan": 6, "madvise": 8, "fork": 2},
        window=24,
        counts=(4, 8),
        advice=("MERGEABLE", "MERGEABLE", "MERGEABLE", "UNMERGEABLE", "DONTNEED"),
    ),
    "migrate": Theme(
        _COMMON | {"move_pages": 12, "fork": 3, "mremap": 2}, window=32, kinds=("anon", "anon", "s0", "p0")
    ),
    "directory": Theme(
        {"mmap": 3, "munmap": 2, "write": 14, "read": 4, "clear_refs": 12, "mprotect": 2, "mremap": 18, "fork": 2},
        window=2 * GIGANTIC,
        kinds=("anon", "anon", "anon", "sanon"),
        counts=(GIGANTIC, GIGANTIC, GIGANTIC + 515, 2 * GIGANTIC, 3 * HUGE),
        unit=GIGANTIC,
    ),
    "gigantic": Theme(
        _COMMON | {"fork": 4, "mremap": 3, "madvise": 3, "mem_write": 1},
        window=2 * GIGANTIC,
        kinds=("hugetlb1g",),
        counts=(GIGANTIC,),
        unit=GIGANTIC,
    ),
    "mix": Theme(
        {"mmap": 8, "munmap": 3, "write": 26, "read": 7, "clear_refs": 9, "mprotect": 8, "mremap": 8, "madvise": 22}
        | {"fork": 7, "exit": 3, "setuid": 1, "mlock": 3, "munlock": 2, "mem_write": 3, "mem_read": 1, "ftruncate": 1}
        | {"syscall_read_into": 1, "file_write": 1, "file_read": 1, "uffd_reg": 3, "uffd_wp": 4, "uffd_unwp": 1}
        | {"pin": 2, "unpin": 1, "pkey_mprotect": 2, "wrpkru": 1, "ksm_scan": 1},
        window=20,
        kinds=("anon", "anon", "anon", "sanon", "s0", "p0"),
        counts=(1, 2, 3, 4, 8),
        advice=(
            *("DONTNEED", "FREE", "COLD", "PAGEOUT", "PAGEOUT", "WILLNEED", "POPULATE_READ", "POPULATE_WRITE"),
            *("REMOVE", "DONTNEED_LOCKED", "MERGEABLE", "MERGEABLE", "UNMERGEABLE", "DONTFORK", "DOFORK", "WIPEONFORK"),
            *("KEEPONFORK", "RANDOM", "SEQUENTIAL", "NORMAL", "NOHUGEPAGE", "DONTDUMP", "COLLAPSE"),
        ),
        prepared=False,
    ),
    "part": Theme(
        {"mmap": 1, "write": 22, "read": 5, "clear_refs": 10, "mprotect": 12, "madvise": 26, "fork": 7, "exit": 2}
        | {"munmap": 2, "mremap": 4, "mlock": 1, "munlock": 1, "mem_write": 2, "uffd_reg": 1, "uffd_wp": 2, "pin": 2},
        window=2048,
        counts=(512, 512, 1024),
        advice=("HUGEPAGE", "FREE", "FREE", "COLD", "COLD", "PAGEOUT", "PAGEOUT", "DONTNEED", "COLLAPSE", "NOHUGEPAGE"),
        unit=HUGE,
    ),
    "scan": Theme(
        _COMMON
        | {
            "pagemap_scan": 20,
            "uffd_async_open": 2,
            "uffd_async_reg": 6,
            "uffd_async_wp": 4,
            "uffd_async_unwp": 1,
            "uffd_async_unreg": 1,
            "fork": 2,
            "madvise": 3,
        },
        kinds=("anon", "anon", "s0", "p0"),
        advice=("DONTNEED", "PAGEOUT"),
    ),
    "leaf": Theme(
        _COMMON
        | {"mmap": 5, "madvise": 8, "pagemap_scan": 20, "uffd_async_open": 2, "uffd_async_reg": 6, "uffd_async_wp": 4}
        | {"uffd_async_unwp": 1, "uffd_async_unreg": 1, "fork": 2, "mremap": 2},
        window=2048,
        kinds=("anon", "anon", "hugetlb", "shugetlb"),
        counts=(512, 512, 1024),
        advice=("HUGEPAGE", "HUGEPAGE", "DONTNEED", "PAGEOUT"),
        unit=HUGE,
    ),
    "cross": Theme(
        dict.fromkeys(
            (
                *("mmap", "munmap", "write", "read", "clear_refs", "mprotect", "mremap", "madvise", "fork", "exit"),
                *("mem_write", "mem_read", "syscall_read_into", "mlock", "munlock", "pkey_mprotect", "wrpkru"),
                *("pin", "unpin", "move_pages", "pagemap_scan", "ftruncate", "file_write", "setuid"),
                *("uffd_reg", "uffd_wp", "uffd_unwp", "uffd_async_open", "uffd_async_reg", "uffd_async_unreg"),
                *("uffd_async_wp", "uffd_async_unwp"),
            ),
            2,
        ),
        window=4096,
        counts=(512, 512, 1024, 1536),
        advice=(
            *("DONTNEED", "FREE", "COLD", "PAGEOUT", "WILLNEED", "POPULATE_READ", "POPULATE_WRITE", "REMOVE"),
            *(
                "DONTNEED_LOCKED",
                "DONTFORK",
                "DOFORK",
                "WIPEONFORK",
                "KEEPONFORK",
                "NOHUGEPAGE",
                "HUGEPAGE",
                "COLLAPSE",
            ),
            *("MERGEABLE", "UNMERGEABLE", "SEQUENTIAL", "DONTDUMP"),
        ),
        unit=HUGE,
        prepared=False,
        crossed=(("hugetlb", "shugetlb", "huge", "anon", "sanon", "s0", "p0"), ("none", "sync", "async"), (4, 4, 5)),
    ),
    "alike": Theme(
        _COMMON | {"same": 8, "ksm": 6, "madvise": 8, "fork": 2},
        window=24,
        counts=(4, 8),
        advice=("MERGEABLE", "MERGEABLE", "MERGEABLE", "UNMERGEABLE", "DONTNEED"),
        old_only=True,
    ),
    "nonlinear": Theme(
        _COMMON | {"remapfile": 12, "mremap": 4, "fork": 2, "ftruncate": 1, "madvise": 4},
        kinds=("s0", "s0", "s0", "sanon"),
        advice=("DONTNEED", "PAGEOUT", "SOFT_OFFLINE", "REMOVE"),
        old_only=True,
    ),
    "disk": Theme(
        _COMMON | {"sync": 8, "file_write": 3, "mremap": 3, "fork": 2, "madvise": 2, "mem_write": 2},
        kinds=("s4", "s4", "p4"),
        counts=(2, 4, 8),
        advice=("DONTNEED", "PAGEOUT"),
        old_only=True,
    ),
    "slot": Theme(
        {"mmap": 4, "munmap": 4, "write": 14, "read": 8, "clear_refs": 6, "mremap": 18, "madvise": 18, "fork": 3},
        window=32,
        counts=(2, 4, 8, 16),
        advice=("PAGEOUT", "PAGEOUT", "PAGEOUT", "DONTNEED"),
        old_only=True,
    ),
    "offline": Theme(
        _COMMON | {"madvise": 14, "fork": 4, "mremap": 4, "swapoff": 3, "clearraw": 2, "mlock": 1},
        kinds=("anon", "anon", "anon", "sanon", "s0", "p0"),
        advice=("SOFT_OFFLINE", "SOFT_OFFLINE", "PAGEOUT", "PAGEOUT", "DONTNEED"),
        old_only=True,
    ),
    "guard": Theme(
        _COMMON
        | {"madvise": 30, "mremap": 7, "fork": 5, "exit": 1, "mlock": 5, "munlock": 1, "mem_write": 3, "mem_read": 1}
        | {"ftruncate": 1, "file_write": 1, "pagemap_scan": 4, "uffd_wp": 2, "pin": 1},
        window=32,
        kinds=("anon", "anon", "anon", "sanon", "s0", "p0"),
        advice=(
            *("GUARD_INSTALL", "GUARD_INSTALL", "GUARD_INSTALL", "GUARD_INSTALL", "GUARD_INSTALL", "GUARD_INSTALL"),
            *("GUARD_REMOVE", "GUARD_REMOVE", "GUARD_REMOVE", "DONTNEED", "DONTNEED", "PAGEOUT", "FREE", "COLD"),
            *("POPULATE_READ", "POPULATE_WRITE", "REMOVE", "DONTFORK", "WIPEONFORK"),
        ),
        new_advice="GUARD_INSTALL",
        prepared=False,
    ),
}
"""Name to theme."""

_SUBJECT: Final = 10
"""Weight from which on a theme is about a verb."""
SELDOM: Final = {"gigantic": 16}
"""Theme to how many rounds go by for each that it takes part in: 262,144 pages a page take their time."""


def knows(profile: Profile, verb: str) -> bool:
    """Is the verb asked of the profile's kernel? That WP_ASYNC is refused is an answer too."""
    return verb in profile.verbs or (verb == "uffd_async_open" and "uffd_reg" in profile.verbs)


def _plays(profile: Profile, theme: Theme) -> bool:
    old = profile.verbs == VERBS_3_11
    if "hugetlb1g" in theme.kinds and old or theme.old_only and not old:
        return False
    if theme.crossed and old:
        return False
    if theme.new_advice and not knows_advice(profile, theme.new_advice):
        return False
    return all(knows(profile, verb) for verb, weight in theme.verbs.items() if weight >= _SUBJECT)


def known_themes(profile: Profile) -> list[str]:
    """The themes whose main operations the profile's kernel knows."""
    return [name for name, theme in THEMES.items() if _plays(profile, theme)]
