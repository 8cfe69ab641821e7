"""What the golden model's files of /proc say, in the form in which a recording has them (`ptewalk record --proc`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptewalk.model.errors import Errno
from ptewalk.model.linux import KpageflagsBit
from ptewalk.model.proc import kpage
from ptewalk.model.proc.files import ProcFile, ProcFs
from ptewalk.model.profile import Profile
from ptewalk.model.scenario.format import Scenario
from ptewalk.model.scenario.replay import Replay

_KEPT_BITS = (
    *(KpageflagsBit.UPTODATE, KpageflagsBit.DIRTY, KpageflagsBit.MMAP, KpageflagsBit.ANON, KpageflagsBit.SWAPCACHE),
    *(KpageflagsBit.SWAPBACKED, KpageflagsBit.COMPOUND_HEAD, KpageflagsBit.COMPOUND_TAIL, KpageflagsBit.HUGE),
    *(KpageflagsBit.KSM, KpageflagsBit.THP, KpageflagsBit.ZERO_PAGE, KpageflagsBit.RESERVED, KpageflagsBit.PGTABLE),
    KpageflagsBit.MAPPEDTODISK,
)
KEPT = sum(1 << bit for bit in _KEPT_BITS)
"""The flags of kpageflags that the model keeps; DIRTY not of shared hugetlb pages."""
SIZES = ("Vm", "Rss", "HugetlbPages")
"""What lines of status begin with that tell of memory."""


def kept(word: int) -> int:
    """Of a word of kpageflags what the model keeps."""
    hugetlb_file = word >> KpageflagsBit.HUGE & 1 and not word >> KpageflagsBit.ANON & 1
    return word & KEPT & ~(1 << KpageflagsBit.DIRTY) if hugetlb_file else word & KEPT


def recorded(scenario: Scenario) -> dict[int, dict[str, Any]]:
    """Step to what a live kernel's files said, as far as the model keeps it."""
    found = {}
    for index, step in enumerate(scenario.steps):
        files = dict((step.recorded or {}).get("files", {}))
        for name, value in files.items():
            if name.endswith("/kpageflags"):
                words = [(first + j, kept(int(word, 16))) for first, count, word in value for j in range(count)]
                files[name] = dict(words)
            elif name.endswith("/status"):
                files[name] = [line for line in value if line.startswith(SIZES)]
        if files:
            found[index] = files
    return found


def answered(scenario: Scenario, profile: Profile) -> dict[int, dict[str, Any]]:
    """The same of the golden model, for those files that the recording has."""
    run = Replay(scenario, profile)
    tree = ProcFs(run.kernel)
    wanted = recorded(scenario)
    found = {}
    for index, step in enumerate(scenario.steps):
        ending = None
        if step.op["op"] == "exit":
            ending = tree.open(f"{step.op['who'] + 1}/pagemap")
        run.step()
        if index in wanted:
            found[index] = {name: _answer(run, tree, name, ending) for name in wanted[index]}
    return found


def _answer(run: Replay, tree: ProcFs, name: str, ending: ProcFile | None) -> Any:
    pid, _, file = name.partition("/")
    if file == "kpageflags":
        return _flags(run, int(pid) - 1)
    try:
        if file == "pagemap":
            assert ending is not None
            return len(ending.pread(8, run.kernel.base * 8))
        text = tree.open(name).pread(1 << 20, 0).decode()
    except Errno as error:
        return error.name
    if file == "smaps":
        lines = text.splitlines()
        return "\n".join(" ".join(line.split()[:3]) if "-" in line.split(":")[0] else line for line in lines)
    names = [line.split(":")[0] for line in text.splitlines() if ":" in line.split(" ")[0]]
    return names if file == "smaps_rollup" else [line for line in names if line.startswith(SIZES)]


def _flags(run: Replay, who: int) -> dict[int, int]:
    found = {}
    mm = run.kernel.processes[who].mm
    file = ProcFs(run.kernel).open(f"{who + 1}/pagemap")
    for vma in mm.areas:
        data = file.pread(8 * (vma.end - vma.start), 8 * vma.start)
        for page, word in enumerate(np.frombuffer(data, np.uint64).tolist(), vma.start - run.kernel.base):
            if word >> 63 and word & (1 << 55) - 1:
                found[page] = kept(int(kpage.flags(run.kernel, word & (1 << 55) - 1, 1)[0]))
    return found
