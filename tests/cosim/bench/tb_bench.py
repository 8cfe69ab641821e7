"""In-simulator side of test_batch.py: runs the batches that it is given, and publishes what they gave."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import cocotb
import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.conditions import BenchError, Conditions, Stalls
from ptewalk.cosim.bench.records import INTERFERENCE, decode, state_and_request
from ptewalk.cosim.bench.walker import WalkerBench
from ptewalk.cosim.simulate.run import Job
from ptewalk.model.memory import SparseMemory


def memory_of(job: Job) -> SparseMemory:
    """The memory that the arrays frames and words describe."""
    memory = SparseMemory(job.values["physical_bits"], strict=job.values["strict"])
    for frame, words in zip(job.arrays["frames"], job.arrays["words"], strict=True):
        memory.add_frame(int(frame))[:] = words
    return memory


@cocotb.test()
async def batches(dut: Any) -> None:
    """Each of `values["runs"]`, on a fresh copy of the memory; after an error the bench is started again."""
    job = Job.current()
    initial = memory_of(job)
    bench = WalkerBench(dut, initial.copy())
    await bench.start()
    reports: list[dict[str, Any]] = []
    arrays: dict[str, NDArray[Any]] = {}
    for number, how in enumerate(job.values["runs"]):
        bench.memory.words[: len(initial.words)] = initial.words
        report: dict[str, Any] = {"error": "", "status": ""}
        requests = job.arrays[how.get("requests", "requests")]
        try:
            result = await bench.batch(
                requests,
                interferences=job.arrays.get(how.get("interferences", ""), np.zeros(0, INTERFERENCE)),
                conditions=Conditions(stalls=Stalls(**how.get("stalls", {})), **how.get("conditions", {})),
                stop_on_fault=how.get("stop_on_fault", False),
                compiled=how.get("compiled"),
            )
        except (TypeError, ValueError, RuntimeError) as error:
            report["error"] = f"{type(error).__name__}: {error}"
        except BenchError as error:
            report |= {"error": str(error), "status": error.status.name, "request": error.request, "cycle": error.cycle}
            await bench.start()
        else:
            report |= {"compiled": result.compiled, "seconds": result.seconds, **asdict(result.counters)}
            arrays |= {
                f"requests{number}": result.requests,
                f"responses{number}": result.responses,
                f"events{number}": result.events,
                f"faults{number}": result.faults,
                f"written{number}": result.written,
                f"walked{number}": result.walked,
                f"translations{number}": result.translations,
                f"words{number}": bench.memory.words[: len(initial.row_of_frame)].copy(),
            }
        reports.append(report)
    job.publish({"reports": reports}, arrays)


@cocotb.test()
async def single_requests(dut: Any) -> None:
    """`request`, one at a time; the callbacks see each request and response; errors in order of use."""
    job = Job.current()
    bench = WalkerBench(dut, memory_of(job))
    refused = ""
    try:
        await bench.batch(job.arrays["requests"])
    except RuntimeError as error:
        refused = str(error)
    await bench.start()
    seen: list[tuple[int, int]] = []
    answered: list[tuple[int, int]] = []
    bench.on_request.append(lambda index, record: seen.append((index, int(record["tag"]))))
    bench.on_response.append(lambda index, record: answered.append((index, int(record["tag"]))))
    results = []
    for number, row in enumerate(job.arrays["requests"]):
        state, request = state_and_request(row)
        results.append(repr(decode(await bench.request(state, request, tag=number + 1))))
    job.publish({"refused": refused, "results": results, "seen": seen, "answered": answered})
