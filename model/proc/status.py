"""The text files of /proc by which programs find processes and sum up memory: stat, statm, status, meminfo and so on.

fs/proc/array.c, fs/proc/task_mmu.c:task_mem, fs/proc/meminfo.c. What the model has no notion of is 0: times, signals,
peaks (each is the present value), CPUs but one. The machine has `TOTAL_PAGES` of memory; frames in use are counted off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ptewalk.model.linux import FIRST_SPECIAL_SWAP_TYPE, HUGE_PAGES, VmFlag
from ptewalk.model.mm import thp
from ptewalk.model.pte import PROTNONE, SPECIAL, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState, Process
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT

TOTAL_PAGES: Final = 1 << 20
"""Memory of the machine, in pages: 4 GiB."""
_KB: Final = PAGE_SHIFT - 10
"""Pages to kilobytes."""
_HZ: Final = 100
_BOOT: Final = 1_000_000_000
"""Seconds of the clock at which the machine was started."""
_USER, _ROOT = 65534, 0


@dataclass(frozen=True)
class Sizes:
    """What an address space uses, in pages (struct mm_struct's counters).

    Attributes
    ----------
    total, locked, data, stack : int
        total_vm, locked_vm, data_vm, stack_vm.
    anon, file, shmem, swap : int
        MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS.
    hugetlb : int
        hugetlb_usage.
    tables : int
        mm_pgtables_bytes.
    """

    total: int
    locked: int
    data: int
    stack: int
    anon: int
    file: int
    shmem: int
    swap: int
    hugetlb: int
    tables: int

    @property
    def resident(self) -> int:
        """get_mm_rss"""
        return self.anon + self.file + self.shmem

    @staticmethod
    def of(process: Process) -> Sizes:
        """Count them."""
        mm = process.mm
        entries, frames = mm.entries, mm.frames
        count = dict.fromkeys(("locked", "data", "stack", "anon", "file", "shmem", "swap", "hugetlb"), 0)
        for vma in mm.areas:
            size = vma.end - vma.start
            count["locked"] += size if vma.flags & VmFlag.LOCKED else 0
            if vma.flags & VmFlag.GROWSDOWN:
                count["stack"] += size
            elif vma.flags & (VmFlag.WRITE | VmFlag.SHARED) == VmFlag.WRITE:
                count["data"] += size
            of_file = "file" if vma.file is not None and vma.file.counts_dirty else "shmem"
            for piece in mm.tables.pieces(vma, vma.start, vma.end):
                if vma.huge_level:
                    count["hugetlb"] += vma.leaf_pages if entries.pte_present(piece.leaf) else 0
                    continue
                if piece.leaf:
                    count["anon"] += 0 if thp.is_huge_zero(mm, piece.leaf) else HUGE_PAGES
                    continue
                part = mm.tables.part(piece.first, piece.last)
                present = (part & np.uint64(P | PROTNONE)) != 0
                normal = part[present & ((part & np.uint64(SPECIAL)) == 0)]
                anon = int(np.count_nonzero(frames.flags[entries.pte_pfn(normal).astype(np.int64)] & page.ANON))
                count["anon"] += anon
                count[of_file] += len(normal) - anon
                swapped = part[(part != 0) & ~present]
                count["swap"] += int(np.count_nonzero(entries.swp_type(swapped) < FIRST_SPECIAL_SWAP_TYPE))
        total = sum(vma.end - vma.start for vma in mm.areas)
        return Sizes(total=total, tables=len(mm.tables.frames_used()), **count)


def name(process: Process) -> str:
    """The command's name: the scenario's number of the process."""
    return f"process{process.who}"


def _parent(kernel: MachineState, process: Process) -> int:
    """PID of the parent; process 0 takes over orphans. 0: none."""
    if process.who == 0:
        return 0
    return (process.parent if process.parent in kernel.processes else 0) + 1


def comm(kernel: MachineState, process: Process) -> str:
    """/proc/PID/comm"""
    return name(process) + "\n"


def cmdline(kernel: MachineState, process: Process) -> str:
    """/proc/PID/cmdline"""
    return name(process) + "\0"


def statm(kernel: MachineState, process: Process) -> str:
    """/proc/PID/statm: size, resident, shared, text, lib, data, dt in pages (proc_pid_statm)."""
    sizes = Sizes.of(process)
    return f"{sizes.total} {sizes.resident} {sizes.file + sizes.shmem} 0 0 {sizes.data + sizes.stack} 0\n"


def stat(kernel: MachineState, process: Process) -> str:
    """/proc/PID/stat (do_task_stat): 52 fields; vsize in bytes, rss in pages."""
    sizes, pid = Sizes.of(process), process.who + 1
    fields: list[object] = [pid, f"({name(process)})", "S", _parent(kernel, process), pid, pid]  # pid to session
    fields += [0, -1, *[0] * 9]  # tty_nr, tpgid, flags to cstime
    fields += [20, 0, 1, 0, 0]  # priority, nice, num_threads, itrealvalue, starttime
    fields += [sizes.total * PAGE_BYTES, sizes.resident, (1 << 64) - 1]  # vsize, rss, rsslim
    fields += [*[0] * 12, 17, *[0] * 14]  # startcode to cnswap, exit_signal SIGCHLD, processor to exit_code
    return " ".join(map(str, fields)) + "\n"


def status(kernel: MachineState, process: Process) -> str:
    """/proc/PID/status (proc_pid_status, task_mem); lines that later kernels have are left out for 3.11."""
    sizes, pid, user = Sizes.of(process), process.who + 1, _USER if process.user else _ROOT
    ids = "\t".join([str(user)] * 4)
    lines = [
        *("Name:\t" + name(process), "State:\tS (sleeping)", f"Tgid:\t{pid}", f"Pid:\t{pid}"),
        *(
            f"PPid:\t{_parent(kernel, process)}",
            "TracerPid:\t0",
            f"Uid:\t{ids}",
            f"Gid:\t{ids}",
            "FDSize:\t64",
            "Groups:\t",
        ),
    ]
    kilobytes = {
        "VmPeak": sizes.total,
        "VmSize": sizes.total,
        "VmLck": sizes.locked,
        "VmPin": 0,
        "VmHWM": sizes.resident,
        "VmRSS": sizes.resident,
    }
    if kernel.profile.status_by_kind:
        kilobytes |= {"RssAnon": sizes.anon, "RssFile": sizes.file, "RssShmem": sizes.shmem}
    kilobytes |= {"VmData": sizes.data, "VmStk": sizes.stack, "VmExe": 0, "VmLib": 0, "VmPTE": sizes.tables}
    kilobytes |= {"VmSwap": sizes.swap}
    if kernel.profile.status_by_kind:
        kilobytes |= {"HugetlbPages": sizes.hugetlb}
    lines += [f"{key}:\t{pages << _KB:8} kB" for key, pages in kilobytes.items()]
    return "\n".join([*lines, "Threads:\t1"]) + "\n"


def meminfo(kernel: MachineState) -> str:
    """/proc/meminfo (meminfo_proc_show), of a machine with `TOTAL_PAGES`."""
    frames = kernel.frames
    flags, tails = frames.flags[: frames.next], frames.head[: frames.next] != np.arange(frames.next)
    anon = int(np.count_nonzero((flags & (page.ANON | page.HUGETLB)) == page.ANON))
    unmapped = sum(not frames.mapcount(frame) for frame in frames.cached_slot)  # in the swap cache alone
    cached = int(np.count_nonzero((flags & (page.FILE | page.HUGETLB)) == page.FILE))
    mapped = int(np.count_nonzero(((flags & page.FILE) != 0) & (frames.maps[: frames.next] > 0)))
    huge = int(np.count_nonzero(((flags & page.COMPOUND) != 0) & ~tails & ((flags & page.ANON) != 0)))
    processes = [Sizes.of(process) for process in kernel.processes.values()]
    tables = sum(sizes.tables for sizes in processes)
    pool = kernel.pools[2]
    free = TOTAL_PAGES - anon - cached - tables - pool.total * HUGE_PAGES
    slots = len(kernel.swap.slots)
    kilobytes = {
        "MemTotal": TOTAL_PAGES,
        "MemFree": free,
        "MemAvailable": free + cached,
        "Buffers": 0,
        "Cached": cached,
        "Active": 0,
        "Inactive": 0,
        "SwapCached": len(frames.cached_slot),
        "SwapTotal": TOTAL_PAGES,
        "SwapFree": TOTAL_PAGES - slots,
        "AnonPages": anon - unmapped,
        "Mapped": mapped,
        "Shmem": cached,
        "Slab": 0,
        "PageTables": tables,
        "AnonHugePages": huge * HUGE_PAGES,
    }
    lines = [f"{key + ':':<16}{pages << _KB:8} kB" for key, pages in kilobytes.items()]
    counts = {"HugePages_Total": pool.total, "HugePages_Free": pool.total - pool.used, "HugePages_Rsvd": pool.reserved}
    lines += [f"{key + ':':<16}{count:8}" for key, count in counts.items()]
    return "\n".join([*lines, f"Hugepagesize:   {HUGE_PAGES << _KB:8} kB"]) + "\n"


def machine_stat(kernel: MachineState) -> str:
    """/proc/stat: one CPU that has been idle for a second."""
    cpu = "0 0 0 " + str(_HZ) + " 0 0 0 0 0 0"
    counts = f"ctxt 0\nbtime {_BOOT}\nprocesses {len(kernel.processes)}\nprocs_running 1\nprocs_blocked 0\n"
    return f"cpu  {cpu}\ncpu0 {cpu}\nintr 0\n{counts}"


def cpuinfo(kernel: MachineState) -> str:
    """/proc/cpuinfo: the one CPU's number."""
    return "processor\t: 0\n\n"


def uptime(kernel: MachineState) -> str:
    """/proc/uptime: a second."""
    return "1.00 1.00\n"


def loadavg(kernel: MachineState) -> str:
    """/proc/loadavg"""
    return f"0.00 0.00 0.00 1/{len(kernel.processes)} {max(kernel.processes, default=0) + 1}\n"


def version(kernel: MachineState) -> str:
    """/proc/version: the profile's kernel."""
    return f"Linux version {kernel.profile.name.removeprefix('linux-')} (ptewalk's model)\n"
