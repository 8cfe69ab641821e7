"""AxQOS that software sets, on an interface of a manager that sends none."""

from typing import Any

from amaranth.hdl import Module, Signal, Value

__all__ = ["stamp_qos"]


def stamp_qos(m: Module, axi: Any, qos: Value, name: str) -> None:
    """Drives AxQOS of an interface that `m` drives, after all else of it; what is on offer keeps what it had."""
    for channel in ("aw", "ar"):
        stream, kept = getattr(axi, channel), Signal(4, name=f"{name}_{channel}_qos")
        with m.If(~stream.valid | stream.ready):
            m.d.sync += kept.eq(qos)
        m.d.comb += stream.payload.qos.eq(kept)
