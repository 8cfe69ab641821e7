"""Points of a design's Python: each statement and branch is a bit, in force where it should be."""

from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator, SimulatorContext

from ptewalk.cosim.campaigns.lines import statements_of
from ptewalk.rtl.export import BUS_DESIGNS, DESIGNS, Config, flat_top
from ptewalk.rtl.points import RTL, add_levels, add_points, elaborated
from ptewalk.rtl.presets import CACHING


class Colour(enum.Enum, shape=2):
    RED = 0
    BLUE = 2


class Sample(wiring.Component):
    """A statement of each kind."""

    asked: In(2)
    told: Out(2)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        view = Signal(data.StructLayout({"low": 1, "high": 1}))
        colour = Signal(Colour)
        m.submodules.queue = SyncFIFO(width=1, depth=2)
        m.d.comb += view.eq(self.asked)  # always
        with m.If(view.low):  # low
            m.d.sync += self.told.eq(1)  # low's
        with m.Elif(view.high):  # high
            m.d.sync += self.told.eq(2)  # high's
        with m.If(view.low):  # again
            m.d.comb += colour.eq(Colour.BLUE)  # blue
        with m.Else():  # else
            with m.Switch(self.asked):
                with m.Case(0):  # zero
                    m.d.sync += self.told.eq(0)  # zero's
                with m.Default():  # other
                    pass
        with m.FSM():
            with m.State("first"):  # first
                with m.If(self.asked == 3):  # three
                    m.next = "second"  # has no line of its own
            with m.State("second"):  # second
                m.d.comb += colour.eq(Colour.RED)  # red
        return m


HERE = Path(__file__).resolve()
LINES = HERE.read_text().splitlines()


def in_force(*asked: int) -> set[str]:
    """Each point of `Sample` that is in force in some cycle, by the comment at its line; one input a cycle."""
    component = Sample()
    top = elaborated(component)
    bits, names = add_points(top, HERE.parent)
    seen: set[str] = set()

    async def testbench(ctx: SimulatorContext) -> None:
        for value in asked:
            ctx.set(component.asked, value)
            seen.update(name for place, name in enumerate(names) if ctx.get(bits[place]))
            await ctx.tick()

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return {comment(name) for name in seen}


def comment(name: str) -> str:
    """A point by the comment at its line."""
    file, _, rest = name.partition(":")
    line, kind = rest.split()
    assert file == f"{HERE.parent.name}/{HERE.name}"
    return f"{LINES[int(line) - 1].partition('# ')[2]} {kind}"


@pytest.mark.parametrize(
    ("asked", "more"),
    [
        (0, {"high none", "else taken", "zero taken", "zero's line"}),
        (1, {"low taken", "low's line", "again taken", "blue line"}),
        (2, {"high taken", "high's line", "else taken", "other taken"}),
    ],
)
def test_what_is_in_force(asked: int, more: set[str]) -> None:
    """By hand. A queue of Amaranth's has no point, and an `If` with an `Else` has no branch without."""
    assert in_force(asked) == {"always line", "first taken", "three none"} | more


def test_it_is_so_cycle_by_cycle() -> None:
    """A state is in force from the next cycle on."""
    whole = in_force(0, 1, 2, 3, 3)
    assert in_force(3) == {
        *("always line", "low taken", "low's line", "again taken", "blue line"),
        *("first taken", "three taken"),
    }
    assert in_force(3, 3) - in_force(3) == {"second taken", "red line"}
    component = Sample()
    _, names = add_points(elaborated(component), HERE.parent)
    assert whole == {comment(name) for name in names}


def test_levels_are_the_signals_that_statements_drive() -> None:
    """By hand; a queue of Amaranth's has none, nor has the state that it makes for an FSM."""
    component = Sample()
    top = elaborated(component)
    levels = {name.partition(":")[2].partition(" ")[2]: output for output, name in add_levels(top, HERE.parent)}
    widths = {name: len(output) for name, output in levels.items()}
    assert widths == {"view": 2, "colour": 2, "told": 2}
    shown: list[int] = []

    async def testbench(ctx: SimulatorContext) -> None:
        for value in (1, 2, 3):
            ctx.set(component.asked, value)
            shown.append(ctx.get(levels["view"]))
            await ctx.tick()
            shown.append(ctx.get(levels["told"]))

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert shown == [1, 1, 2, 2, 3, 1]


def test_signals_of_one_name_at_one_line_are_told_apart() -> None:
    class Two(Elaboratable):
        def elaborate(self, platform: Any) -> Module:
            m = Module()
            first, second = (Signal(width, name="same") for width in (3, 5))  # both
            m.d.comb += [first.eq(1), second.eq(2)]
            return m

    levels = add_levels(elaborated(Two()), HERE.parent)
    line = next(number for number, text in enumerate(LINES, 1) if text.endswith("# both"))
    file = f"{HERE.parent.name}/{HERE.name}"
    assert [(len(output), name) for output, name in levels] == [
        (3, f"{file}:{line} same"),
        (5, f"{file}:{line} same 2"),
    ]


def test_views_tell_their_own_line_again_afterwards() -> None:
    before = data.View.eq, enum.EnumView.eq
    elaborated(Sample())
    assert (data.View.eq, enum.EnumView.eq) == before


CONFIGS: dict[str, Config] = {
    **{name: design.config() for name, design in (DESIGNS | BUS_DESIGNS).items()},
    **CACHING,
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", CONFIGS)
def test_each_point_of_a_design_is_a_statement_in_the_text(name: str) -> None:
    """So what is found in the text (`campaigns.lines`) and what designs have go by the same names."""
    texts = {f"rtl/{path.relative_to(RTL)}": path.read_text() for path in RTL.rglob("*.py")}
    known = {f"{file}:{line} {kind}" for file, text in texts.items() for line, kind in statements_of(text)}
    _, names = add_points(elaborated(flat_top(CONFIGS[name])))
    assert set(names) - known == set() and len(names) >= 40
