"""The co-simulation; for testbenches of your own: `from ptewalk.cosim import BuiltWalker, WalkerBench, run_test`."""

from typing import Any

if __name__ == "cosim":
    raise ImportError("import this package as ptewalk.cosim (install the project with 'make setup'), not as cosim")

__all__ = ["BuiltWalker", "WalkerBench", "run_test"]

_HOMES = {
    "BuiltWalker": "ptewalk.cosim.runs.gateware",
    "WalkerBench": "ptewalk.cosim.bench.walker",
    "run_test": "ptewalk.cosim.simulate.run",
}


def __getattr__(name: str) -> Any:
    """What the package re-exports, imported when it is asked for: the golden model's commands need no simulator."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
