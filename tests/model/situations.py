"""Situations in which rules of soft-dirty are looked at, and the bits that they are about."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE

RW, A, D, PROTNONE, SPECIAL, UFFD_WP, SD = 0x2, 0x20, 0x40, 0x100, 0x200, 0x400, 0x800
SEED, B, C = "linux-seed", "linux-6.1", "linux-6.12"
OLD, MODERN = [SEED, "linux-3.11"], [B, C]
modern = pytest.mark.parametrize("profile", MODERN)
every = pytest.mark.parametrize("profile", OLD + MODERN)


def cleared(m, n: int = 4, kind: str = "anon"):  # type: ignore[no-untyped-def]
    """Written pages, cleared."""
    m.mmap(0, n, kind=kind)
    m.write(0, n)
    m.clear()
    return m


def huge(m, *, clear: bool = True):  # type: ignore[no-untyped-def]
    """One written huge page, cleared."""
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0)
    if clear:
        m.clear()
    return m


def lock(m, page: int, n: int, *, on: bool = True) -> None:  # type: ignore[no-untyped-def]
    (m.task().mlock if on else m.task().munlock)(m.at(page), n * PAGE)


def wp(m, page: int, n: int, *, protect: bool = True, asynchronous: bool = False) -> None:  # type: ignore[no-untyped-def]
    """Register with a userfaultfd and write-protect."""
    fd = m.task().userfaultfd(asynchronous=asynchronous)
    fd.register(m.at(page), n * PAGE)
    if protect:
        fd.writeprotect(m.at(page), n * PAGE)
