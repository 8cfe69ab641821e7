"""The machine that a scenario leaves behind is the same, whichever process the gateware ran in."""

from __future__ import annotations

import pytest

from ptewalk.cosim.bench.lane import VerilatorLane
from ptewalk.cosim.bench.mmu import MmuNotes, RepeatedMmu
from ptewalk.cosim.checks.performances import left_behind
from ptewalk.cosim.checks.served import ServedState
from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.cosim.runs.served import left_by_gateware
from ptewalk.cosim.simulate.build import BuildDir
from ptewalk.cosim.simulate.find import detect
from ptewalk.model.memory import SparseMemory


@pytest.mark.thorough
@pytest.mark.parametrize("track", ["off", "fault", "native"])
def test_what_was_noted_is_repeated(mmu_library: BuildDir, track: str) -> None:
    """Answers and words, and so the whole machine."""
    state, notes = ServedState(str(KERNELS["linux-6.1"]), "h01_anon_basic", step=3, track=track), MmuNotes()
    with VerilatorLane(mmu_library.library) as lane:
        left = left_behind(state, lane, lane.design, notes)
    arrays = notes.arrays()
    assert (len(arrays["written"]) > 0) == (track != "off")
    made: list[RepeatedMmu] = []

    def repeated(memory: SparseMemory) -> RepeatedMmu:
        made.append(RepeatedMmu(memory, arrays))
        return made[0]

    assert state.run(repeated).memory == left.kernel.memory
    assert [mmu.over for mmu in made] == [True]


@pytest.mark.slow
def test_another_process_tells_all_that_its_mmu_did() -> None:
    if "icarus" not in {simulator.name for simulator in detect()}:
        pytest.skip("Icarus Verilog was not found")
    state = ServedState(str(KERNELS["linux-6.1"]), "h01_anon_basic", step=3, track="native")
    here, there, model = left_by_gateware(state, "verilator"), left_by_gateware(state, "icarus"), state.run()
    assert here.told["differences"] == there.told["differences"] == []
    assert there.told["words"] == here.told["words"] > 0
    assert there.told["counters"]["swaps"] == here.told["counters"]["swaps"] > 0
    assert there.kernel.memory == here.kernel.memory == model.memory
