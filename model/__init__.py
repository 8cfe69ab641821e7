"""The golden model: x86-64 translation, and Linux's memory management as far as soft-dirty sees it.

The names of `__all__` are loaded when they are first asked for: the facts of `x86` and `linux`, which the gateware
shares, can be had without numpy.
"""

from importlib import import_module

if __name__ == "model":
    raise ImportError("import this package as ptewalk.model (install the project with 'make setup'), not as model")

_HOMES = {
    "PAGE": "api.words",
    "PROFILES": "profiles",
    "Errno": "errors",
    "Fault": "api.answers",
    "Machine": "api.machine",
    "Task": "api.task",
}
__all__ = ["PAGE", "PROFILES", "Errno", "Fault", "Machine", "Task"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"ptewalk.model.{_HOMES[name]}"), name)
