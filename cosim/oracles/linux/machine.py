"""A real Linux kernel under QEMU (TCG) that executes scenarios.

The guest's memory is a file that this process maps too. The agent (agent.c) executes one operation, writes its answer
into the mailbox, a page of that memory, and falls silent; then the raw page tables are read from the file. CR3 of a
process is asked of QEMU once, while the process spins in user mode.

Example
-------
::

    from ptewalk.cosim.formats.scenarios import ScenarioRequest
    from ptewalk.cosim.oracles.linux.machine import LinuxVm

    mmap = {"who": 0, "op": "mmap", "page": 0, "n": 4, "prot": "rw", "kind": "anon"}
    with LinuxVm("6.1") as vm:
        lines = vm.run(ScenarioRequest("one", [mmap]))
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.formats.scenarios import Line, ScenarioRequest
from ptewalk.cosim.oracles.linux.contents import read_contents
from ptewalk.cosim.oracles.linux.files import ended, read_files
from ptewalk.cosim.oracles.linux.guest import Guest, GuestDied, missing_tools, require_tools
from ptewalk.cosim.oracles.linux.image import GuestKernel, build_initramfs
from ptewalk.cosim.oracles.linux.kernels import find_kernel
from ptewalk.cosim.oracles.linux.operations import (
    Call,
    Operation,
    ScenarioError,
    decode_scan,
    decode_value,
    encode_all,
    errno_name,
)
from ptewalk.cosim.oracles.linux.state import ProcessState, StateWriter, parse_state, read_tables
from ptewalk.model import x86
from ptewalk.model.scenario.arguments import OperationError
from ptewalk.model.scenario.verbs import Lives, outside_window

__all__ = [
    "Answer",
    "GuestDied",
    "LinuxMachines",
    "LinuxVm",
    "ScenarioRequest",
    "ScenarioError",
    "missing_tools",
    "require_tools",
]

WINDOW_SPAN: Final = 1 << 39
SPIN_MARK: Final = 0x5054_455F_5350_494E
CR4_LA57: Final = 12
COMMAND_BEGIN, COMMAND_SPIN, COMMAND_OPERATION, COMMAND_END, COMMAND_FILE = 1, 2, 3, 4, 5
# Byte offsets in the mailbox: struct mailbox of agent.c.
AT_ARGUMENTS, AT_GO, AT_RESULT, AT_STATE_WORDS, AT_PIDS, AT_VALUES = 24, 200, 208, 256, 264, 4096
AT_STATE: Final = AT_VALUES + 2 * 262144


@dataclass(slots=True)
class Answer:
    """What the agent answered to one operation."""

    result: int
    error: int
    values: list[int]
    scan_end: int
    regions: list[tuple[int, int, int]]
    state: NDArray[np.int64]


class LinuxVm(Guest):
    """One booted guest; a context manager.

    Parameters
    ----------
    kernel : str, GuestKernel or None
        As `find_kernel` takes it.
    two_nodes : bool
        Two memory nodes, for move_pages.
    gigantic : bool
        One page of 1 GiB, for hugetlb1g.
    five_levels : bool
        Page tables of five levels (CR4.LA57).
    thp_anon : str
        The boot parameter of that name, for sizes of transparent huge pages; empty: it is not given.
    seconds : float
        Time limit of one operation.
    cpu : str
        QEMU's CPU model. ``max`` has protection keys.

    Raises
    ------
    ToolError
        QEMU, gcc or the kernel cannot be had, or the guest does not boot.
    """

    def __init__(
        self,
        kernel: str | GuestKernel | None = None,
        *,
        two_nodes: bool = False,
        gigantic: bool = False,
        five_levels: bool = False,
        thp_anon: str = "",
        seconds: float = 60.0,
        cpu: str = "max",
    ) -> None:
        super().__init__(
            kernel,
            two_nodes=two_nodes,
            gigantic=gigantic,
            five_levels=five_levels,
            seconds=seconds,
            cpu=cpu,
            options=f" thp_anon={thp_anon}" if thp_anon else "",
        )
        self.thp_anon = thp_anon
        self.control: dict[str, int] = {}
        """cr0, cr4, efer of the guest while a process ran."""
        self._levels = x86.LEVELS_4

    def initramfs(self) -> Path:
        """The agent, and the modules that it loads."""
        return build_initramfs(self.kernel)

    def _find_root(self, who: int) -> int:
        """CR3 of process `who`: it spins in user mode until it was read."""
        self._put(AT_GO, bytes(8))
        try:
            self._command(COMMAND_SPIN, 0, who)
            end = time.monotonic() + self.seconds
            while True:
                registers = self._qmp.registers(self.seconds)
                if registers["CPL"] == 3 and registers["R15"] == SPIN_MARK:
                    break
                if time.monotonic() > end:
                    raise TimeoutError
            self._put(AT_GO, b"\1")
            self._answer_line(self.seconds, "the search for CR3")
        except TimeoutError as error:
            raise self._died("the guest does not run the new process") from error
        except OSError as error:
            raise self._died("the guest died at the start of a process") from error
        self.control = {"cr0": registers["CR0"], "cr4": registers["CR4"], "efer": registers["EFER"]}
        self._levels = x86.LEVELS_5 if registers["CR4"] >> CR4_LA57 & 1 else x86.LEVELS_4
        return registers["CR3"] & ~0xFFF & ((1 << 52) - 1)

    # ---- scenarios ----

    def run(self, request: ScenarioRequest) -> list[Line]:
        """Execute a scenario in a fresh process; its recorded lines, the scenario line first.

        Raises
        ------
        ScenarioError
            The scenario cannot be executed as it stands (an unknown verb, a process that is not live).
        GuestDied
            The machine is lost; start a new one.
        """
        needs = request.needs
        has_memory = self.two_nodes >= needs.two_nodes and self.gigantic >= needs.gigantic
        if not has_memory or (self.five_levels, self.thp_anon) != (needs.five_levels, needs.thp_anon):
            wanted = ", ".join(f"{name}={value}" for name, value in needs._asdict().items())
            raise ScenarioError(f"{request.name}: needs a machine with {wanted}")
        calls = encode_all(request.name, request.ops, request.base)
        try:
            self._ask(f"the start of {request.name}", COMMAND_BEGIN, payload=struct.pack("<q", request.base))
            try:
                steps = self._run_steps(request, calls)
            except ScenarioError:
                if self.alive:
                    self._end(request)
                raise
            self._end(request)
        except ScenarioError:
            raise
        except BaseException:  # Ctrl-C: what the guest is doing is not known, so it is asked nothing more
            self.alive = False
            raise
        head: Line = {
            "t": "scenario",
            "name": request.name,
            "doc": request.doc,
            "base": hex(request.base),
            "steps": len(steps),
        }
        head |= {name: f"{value:x}" for name, value in self.control.items()}
        head |= {"kernel": self.kernel.version, "recordings": 1, "vm_flags": "all"}
        if not self.has_swap:
            head["swap"] = "none"
        if self.thp_anon:
            head["thp_anon"] = self.thp_anon
        clears = [(i, str(op["value"]).strip()) for i, op in enumerate(request.ops) if op["op"] == "clear_refs"]
        unsure = [i for i, value in clears if value in ("1", "2", "3")]
        if unsure:
            head["a_unsure_from"] = unsure[0]
        return [head, *steps]

    def _end(self, request: ScenarioRequest) -> None:
        """Stop what lives of a scenario; the machine is of no more use when that leaves something behind."""
        self.alive = self._ask(f"the end of {request.name}", COMMAND_END) == "K"

    def _run_steps(self, request: ScenarioRequest, calls: list[Call]) -> list[Line]:
        roots = {0: self._find_root(0)}
        if self.five_levels and self._levels != x86.LEVELS_5:
            raise ScenarioError(
                f"{request.name}: kernel {self.kernel.version} runs with page tables of four levels only"
            )
        writer = StateWriter(old=self.kernel.old)
        steps = []
        for i, (op, call) in enumerate(zip(request.ops, calls, strict=True)):
            who = op["who"]
            where = f"{request.name} step {i}"
            try:
                Lives(roots).check(op)
            except OperationError as error:
                raise ScenarioError(f"{where}: {error}") from None
            child = call.arguments[0] if call.operation is Operation.FORK else None
            if request.files and call.operation is Operation.EXIT:
                self.read_file(f"/proc/{self._pid(who)}/pagemap", 0, 0)
            self._ask(where, COMMAND_OPERATION, int(call.operation), who, call.pack())
            answer = self._take_answer()
            if call.operation is Operation.MREMAP and answer.result != -1:
                page = (answer.result - request.base) >> x86.PAGE_SHIFT
                wrong = outside_window("mremap", page, call.arguments[2] >> x86.PAGE_SHIFT)
                if wrong is not None:
                    raise ScenarioError(f"{where}: {wrong}")
            if call.operation is Operation.EXIT:
                del roots[who]
            if child is not None and answer.result == 0:
                roots[child] = self._find_root(child)
            steps.append(self._step(request, i, answer, call, writer, roots))
            if request.files and call.operation is Operation.EXIT:
                steps[-1]["files"] = ended(self.read_file, who, request.base)
        if request.files and steps:
            pids = {who: self._pid(who) for who in roots}
            steps[-1]["files"] = steps[-1].get("files", {}) | read_files(
                self.read_file, pids, request.base, answer.state
            )
        return steps

    def _pid(self, who: int) -> int:
        return int(self._words(AT_PIDS + 8 * who, 1)[0])

    def read_file(self, path: str, offset: int, count: int) -> bytes | str:
        """Bytes of a file of the guest, or the errno's name.

        Parameters
        ----------
        path : str
            Opens it, and it stays open; "" reads that file again.
        """
        self._ask(
            f"the reading of {path}",
            COMMAND_FILE,
            payload=struct.pack("<14Q64s", offset, count, *[0] * 12, path.encode()),
        )
        result, error = self._words(AT_RESULT, 2).tolist()
        return (errno_name(error) or "") if result < 0 else self._box[AT_STATE : AT_STATE + result].tobytes()

    def _take_answer(self) -> Answer:
        result, error, value_count, _, scan_end, region_count = self._words(AT_RESULT, 6).tolist()
        values = self._box[AT_VALUES : AT_VALUES + 2 * value_count].view(np.int16).tolist()
        words = self._words(AT_VALUES, 3 * region_count).reshape(-1, 3).view(np.uint64).tolist()
        regions = [(start, end, categories) for start, end, categories in words]
        state = self._words(AT_STATE, int(self._words(AT_STATE_WORDS, 1)[0]))
        return Answer(result, error, values, scan_end, regions, state)

    def _step(
        self, request: ScenarioRequest, i: int, answer: Answer, call: Call, writer: StateWriter, roots: dict[int, int]
    ) -> Line:
        result, values = answer.result, [decode_value(value) for value in answer.values]
        if result != -1 and call.operation in (Operation.MMAP, Operation.MREMAP):
            result = (result - request.base) >> x86.PAGE_SHIFT
        if call.operation is Operation.SETUID:
            values = [f"pm={int(answer.result == 0)}"]
        if call.operation is Operation.MOVE_PAGES:
            values = list(answer.values)
        processes = {}
        for who, vmas, pages in parse_state(answer.state, request.base):
            tables = read_tables(self._row, roots[who], self._levels, request.base, WINDOW_SPAN)
            processes[who] = ProcessState(vmas, pages, tables)
        contents = read_contents(self._memory, {who: state.tables.leaves for who, state in processes.items()})
        for who, state in processes.items():
            state.contents = contents[who]
        line: Line = {"t": "step", "name": request.name, "i": i, "op": request.ops[i], "ret": result}
        line |= {"errno": errno_name(answer.error), "vals": values, "state": writer.step(processes)}
        if call.operation is Operation.PAGEMAP_SCAN:
            line["scan"] = decode_scan(answer.scan_end, answer.regions, request.base)
        return line


class LinuxMachines:
    """Runs scenarios of all kinds: boots the machine that each needs, one at a time, and a new one when one died.

    A context manager. Parameters as `LinuxVm`.
    """

    def __init__(self, kernel: str | GuestKernel | None = None, *, seconds: float = 60.0, cpu: str = "max") -> None:
        self.kernel = kernel if isinstance(kernel, GuestKernel) else find_kernel(kernel)
        self.seconds, self.cpu = seconds, cpu
        self._vm: LinuxVm | None = None

    def __enter__(self) -> LinuxMachines:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the machine that runs."""
        if self._vm is not None:
            self._vm.close()
            self._vm = None

    def run(self, request: ScenarioRequest) -> list[Line]:
        """As `LinuxVm.run`, on a machine that fits."""
        vm = self._vm
        if vm is None or not vm.alive or (vm.two_nodes, vm.gigantic, vm.five_levels, vm.thp_anon) != request.needs:
            self.close()
            vm = LinuxVm(self.kernel, **request.needs._asdict(), seconds=self.seconds, cpu=self.cpu)
            self._vm = vm.__enter__()
        return vm.run(request)
