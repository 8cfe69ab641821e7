"""The table port of an engine: lines and words, read, conditionally written, and written."""

from typing import Any

from amaranth.hdl import unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

__all__ = ["LinePortSignature", "check_line"]


def check_line(*, data_bits: int, line_bytes: int) -> None:
    """Raises ValueError where a line port cannot have these widths."""
    if data_bits not in (64, 128, 256, 512):
        raise ValueError(f"data_bits must be 64, 128, 256 or 512, not {data_bits!r}")
    if line_bytes not in (64, 128):
        raise ValueError(f"line_bytes must be 64 or 128, not {line_bytes!r}")


class LinePortSignature(Signature):
    """The port through which an engine reads and writes tables and reports, seen from the engine.

    An access is of a line, aligned to `line_bytes`, or of one 64-bit word, which stands in the lane that its address
    names. A transfer of more than a beat is whole: no beat of another stands between its own on the same channel. No
    order between channels or tags is promised. A tag has one read or swap in flight at most.

    Parameters
    ----------
    physical_bits : int
        Width of an address, in bytes.
    data_bits, line_bytes : int
    tag_bits : int

    Members
    -------
    reads : Out(stream of {address, line, link, tag})
        `line`: a line, else a word. `link`: what is read may be swapped next, by the same tag.
    data : In(stream of {value, error, last, tag}, always ready)
        The beats of a read, in the order of addresses. `error`: the bus refused, `value` does not count.
    swaps : Out(stream of {address, line, old, new, changed, last, tag})
        What the tag read last with `link` is written, beat by beat, where `changed` says so, a bit a word. The whole of
        it is written, or nothing. `old` is what was read.
    swapped : In(stream of {done, error, tag}, always ready)
        One per swap. `done`: every word of what was read was still as it was, and the new ones are written. Neither:
        nothing was written. `error`: the bus refused; whether it was written is not known.
    writes : Out(stream of {address, value, strobes, last})
        A line, beat by beat; `strobes`, a bit a word, says what is written.
    written : In(stream of {error}, always ready)
        One per line written, in order.
    """

    def __init__(self, *, physical_bits: int, data_bits: int, line_bytes: int, tag_bits: int) -> None:
        check_line(data_bits=data_bits, line_bytes=line_bytes)
        lanes = unsigned(data_bits // 64)
        where: dict[str, Any] = {"address": unsigned(physical_bits)}
        tag: dict[str, Any] = {"tag": unsigned(tag_bits)}
        value = unsigned(data_bits)

        def of(**fields: Any) -> data.StructLayout:
            return data.StructLayout(fields)

        read = of(**where, line=1, link=1, **tag)
        beat = of(value=value, error=1, last=1, **tag)
        swap = of(**where, line=1, old=value, new=value, changed=lanes, last=1, **tag)
        super().__init__(
            {
                "reads": Out(stream.Signature(read)),
                "data": In(stream.Signature(beat, always_ready=True)),
                "swaps": Out(stream.Signature(swap)),
                "swapped": In(stream.Signature(of(done=1, error=1, **tag), always_ready=True)),
                "writes": Out(stream.Signature(of(**where, value=value, strobes=lanes, last=1))),
                "written": In(stream.Signature(of(error=1), always_ready=True)),
            }
        )
