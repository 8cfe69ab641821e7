"""The bridge, by the rules of docs/bridge.md."""

from .bench import FRAME, LINEAR, Bench, run
from .doubles import OKAY, PAGE, WRITE


def test_one_word_there_and_back() -> None:
    async def job(bench: Bench) -> None:
        assert await bench.write(LINEAR + 0x18, [0x1122_3344_5566_7788]) == OKAY
        assert bench.memory.load(FRAME * PAGE + 0x18, 8) == bytes.fromhex("8877665544332211")
        assert await bench.read(LINEAR + 0x18) == (OKAY, [0x1122_3344_5566_7788])

    bench = run(job)
    assert [request["access"] for _, request in bench.mmu.requests] == [WRITE, 0]
    assert [page for page, _ in bench.mmu.retired] == [LINEAR // PAGE]
