"""The dirty log behind registers."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value

from ptewalk.rtl.registers.file import RegisterFile

__all__ = ["attach_log"]

_FLAGS = ("timed_out", "overflow", "incomplete", "refused")
_EVENTS = ("overflow", "incomplete", "refused")


def attach_log(m: Module, file: RegisterFile, log: Any) -> tuple[dict[str, Value], dict[str, Value]]:
    """Connects the registers `map.OF_LOG` with what an MMU shows of its log.

    A setup and what is appended are no commands of the queue, since a request at its head may wait for room.

    Parameters
    ----------
    log : LogSignature

    Returns
    -------
    (dict of str to Value, dict of str to Value)
        Interrupts that last, and those that happen, by their names in `map.SOURCES`.
    """
    now, held, told = file.now, file.held, file.told
    setup, appended = log.setups.payload, log.appends.payload

    def wide(registers: Any, name: str) -> Value:
        return Cat(registers[f"LOG_{name}_LO"].value, registers[f"LOG_{name}_HI"].value)

    m.d.comb += [
        *(Value.cast(setup[name]).eq(held.LOG[name]) for name in ("size", "mode", "stalls")),
        setup.base.eq(wide(held, "BASE")[: len(setup.base)]),
        *(setup.time_out.eq(held.LOG_TIMEOUT.value), setup.watermark.eq(held.LOG_WATERMARK.value)),
        setup.index.eq(held.LOG_INDEX.first),
        file.zero.LOG_HEAD.eq(log.setups.valid & log.setups.ready),
        *(appended.linear.eq(wide(held, "LINEAR")), appended.level.eq(held.LOG_APPEND.leaf_level)),
        *(log.head.eq(held.LOG_HEAD.value), log.epoch.eq(held.LOG_APPEND.epoch)),
        *(now.LOG_TAIL.value.eq(log.tail), now.LOG_INDEX.next.eq(log.index), wide(now, "LOST").eq(log.lost)),
        *(now.LOG_STATUS[name].eq(log.status[name]) for name in ("watermark", "stalled", *_FLAGS)),
        *(log.clear[name].eq(told.LOG_STATUS[name]) for name in _FLAGS),
        *(now.LOG_STATUS.setting_up.eq(log.setups.valid), now.LOG_STATUS.appending.eq(log.appends.valid)),
    ]
    for begins, offer in ((told.DO.log_setup, log.setups), (told.DO.log_append, log.appends)):
        m.d.sync += offer.valid.eq(begins | (offer.valid & ~offer.ready))
    events = {}
    for name in _EVENTS:
        last = Signal(name=f"log_{name}_last")  # and it was not cleared
        m.d.sync += last.eq(log.status[name] & ~log.clear[name])
        events[f"log_{name}"] = log.status[name] & ~last
    return {"watermark": log.status.watermark, "log_stalled": log.status.stalled}, events
