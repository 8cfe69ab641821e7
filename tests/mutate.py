"""Mutation: random one-token changes of model/ and rtl/, and whether the tests of the part notice them.

    .venv/bin/python tests/mutate.py --draw 300 --seed 1

Number i of a seed is always the same change of the same sources. Each is made in a copy of the tree, in a process that
is forked with numpy, Amaranth and pytest already there, and the tests run until the first that fails; a change that
makes them use far more processor time than they did without it counts as noticed too. Results are appended to a file:
what stands there is not run again. What is not noticed is printed with the reason that docs/mutation.md gives;
equivalent changes count as not noticed too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from mutation.changes import PARTS, ROOT, Change, digest, draw, sources
from mutation.results import Result, read_results, report
from mutation.workshop import Workshop, preload, tests_of


def baseline(shop: Workshop, part: str) -> int:
    """Seconds of processor time that a part's tests take without a change."""
    print(f"{part}: the tests without a change", flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    example = {"model": "model/mm/faults.py", "rtl": "rtl/walker.py"}[part]
    _, status = os.waitpid(shop.start(None, tests_of(example), 3600), 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status:
        sys.exit(f"mutate: without a change {shop.end()} fails already: mend it first")
    return int(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) + 1


def baselines(shop: Workshop, output: Path, sources_name: str) -> dict[str, int]:
    """`baseline` of each part, kept beside the results for who goes on."""
    path = output.with_suffix(".baseline.json")
    kept = json.loads(path.read_text()) if path.exists() else {}
    if sources_name not in kept:
        kept = {sources_name: {part: baseline(shop, part) for part in PARTS}}
        path.write_text(json.dumps(kept))
    found: dict[str, int] = kept[sources_name]
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draw", type=int, default=300, help="changes, half of them in each part")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "mutation.jsonl")
    parser.add_argument("--again", action="store_true", help="try again what was not noticed")
    parser.add_argument("--report", action="store_true", help="print what is in the file, and run nothing")
    options = parser.parse_args()
    texts = {part: sources(part) for part in PARTS}
    name = digest({file: text for part in PARTS for file, text in texts[part].items()})
    results = read_results(options.output, name, options.seed)
    if options.again:
        results = [result for result in results if result.result != "unnoticed"]
    if options.report:
        return 0 if report(results) else 1
    done = {(r.part, r.number) for r in results}
    todo = []
    for part in PARTS:
        drawn = draw(part, texts[part], options.seed)
        todo += [(number, part, c) for number, c in zip(range(options.draw // 2), drawn, strict=False)]
    todo = [item for item in sorted(todo, key=lambda item: item[:2]) if item[1::-1] not in done]
    print(f"seed {options.seed}, sources {name}: {len(todo)} changes to try, {len(done)} done", flush=True)
    if todo:
        preload()
        shops = [Workshop(ROOT / "build" / "mutate" / str(job)) for job in range(options.jobs)]
        options.output.parent.mkdir(parents=True, exist_ok=True)
        limits = {part: 3 * seconds + 30 for part, seconds in baselines(shops[0], options.output, name).items()}
        results += _try_all(todo, shops, limits, options.output, name, options.seed)
    return 0 if report(results) else 1


def _try_all(
    todo: list[tuple[int, str, Change]], shops: list[Workshop], limits: dict[str, int], path: Path, name: str, seed: int
) -> list[Result]:
    """Each change in a workshop of its own; the results, which are appended to the file one by one."""
    results = []
    waiting, idle = list(reversed(todo)), list(shops)
    running: dict[int, tuple[Workshop, int, str, Change, float]] = {}
    while waiting or running:
        while waiting and idle:
            number, part, change = waiting.pop()
            shop = idle.pop()
            process = shop.start(change, tests_of(change.file), limits[part])
            running[process] = (shop, number, part, change, time.monotonic())
        try:
            process, status = os.wait()
        except KeyboardInterrupt:
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)
            raise
        shop, number, part, change, began = running.pop(process)
        by = shop.end()
        outcome = "unnoticed" if status == 0 else "time" if os.WIFSIGNALED(status) else "noticed"
        fields = {key: value for key, value in asdict(change).items() if key not in ("start", "end")}
        seconds = round(time.monotonic() - began, 1)
        result = Result(name, seed, part, number, **fields, result=outcome, by=by if status else "", seconds=seconds)
        results.append(result)
        with path.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        idle.append(shop)
        where = f"{change.file}:{change.line}"
        print(f"{len(results)}/{len(todo)} {outcome} {where} {by if status else ''}", flush=True)
    return results


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("mutate: interrupted; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
