"""A read that has ended retires soon, though a store retires in each cycle."""

import pytest

from ptewalk.rtl.bridge.config import BridgeConfig

from .bench import LINEAR, Bench, run

pytestmark = pytest.mark.thorough
WRITES = 300


def test_a_read_retires_between_stores() -> None:
    """Within the bound of docs/bridge.md; more stores than that follow."""
    config, waited = BridgeConfig(), 0

    async def job(bench: Bench) -> None:
        nonlocal waited
        for number in range(WRITES):
            bench.manager.write(number % 16, LINEAR + 8 * (number % 64), [number])
        await bench.ticks(60)
        bench.manager.read(1, LINEAR + 0x1000)
        await bench.wait("r")
        while bench.mmu.reading:
            waited += 1
            await bench.ctx.tick()
        assert len(bench.mmu.retired) < WRITES // 2
        await bench.wait("b", WRITES)

    run(job, config)
    assert 0 < waited <= config.writes + 18
