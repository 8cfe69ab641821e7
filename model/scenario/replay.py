"""One scenario on one kernel, step by step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

from ptewalk.model.errors import Errno, FaultsForEver, SwapDamage
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import Mmu, ModelMmu
from ptewalk.model.profile import Profile
from ptewalk.model.scenario import verbs
from ptewalk.model.scenario.arguments import OperationError
from ptewalk.model.scenario.format import Scenario, boots_with_v1
from ptewalk.model.scenario.numbering import TableIds
from ptewalk.model.scenario.snapshot import Outcome, Recorder
from ptewalk.model.scenario.verbs import Unsupported
from ptewalk.model.x86 import PAGE_SHIFT


class Replay:
    """One scenario on one kernel, step by step.

    Parameters
    ----------
    scenario : Scenario
    profile : Profile
    track : Track
    soft_dirty : bool
        CONFIG_MEM_SOFT_DIRTY.
    mmu : callable
        Makes the MMU for a physical memory.
    pagemap_v2 : bool or None
        Whether pagemap has its second layout at the start; None: unless this is the first scenario after a boot without
        a clear_refs 4 (`boots_with_v1`).
    pagemap_fixed : bool
        See `Kernel`.
    raw_tables : bool
        Take `tables` and `ptes` too.
    watch, exact : bool
        See `MachineState`.

    Attributes
    ----------
    kernel : Kernel
    """

    def __init__(
        self,
        scenario: Scenario,
        profile: Profile,
        *,
        track: Track = Track.OFF,
        soft_dirty: bool = True,
        mmu: Callable[[SparseMemory], Mmu] = ModelMmu,
        pagemap_v2: bool | None = None,
        pagemap_fixed: bool = False,
        raw_tables: bool = True,
        watch: bool = False,
        exact: bool = False,
    ) -> None:
        self.scenario = scenario
        self.raw_tables = raw_tables
        self.table_ids = TableIds()
        self.kernel = Kernel(
            profile,
            soft_dirty=soft_dirty,
            track=track,
            base=scenario.base >> PAGE_SHIFT,
            control=scenario.control,
            mmu=mmu,
            pagemap_v2=not boots_with_v1(scenario.name) if pagemap_v2 is None else pagemap_v2,
            pagemap_fixed=pagemap_fixed,
            watch=watch,
            exact=exact,
            thp_anon=scenario.thp_anon,
        )
        self._recorder = Recorder(self.kernel, raw_tables=raw_tables)
        self._index = 0

    def twin(self) -> Replay:
        """The same scenario from its start, on a kernel of the same kind with the golden MMU."""
        kernel = self.kernel
        return Replay(
            self.scenario,
            kernel.profile,
            track=kernel.track,
            soft_dirty=kernel.entries.soft_dirty,
            pagemap_v2=kernel.pagemap_v2,
            pagemap_fixed=kernel.pagemap_fixed,
            raw_tables=self.raw_tables,
            exact=kernel.exact,
        )

    def step(self) -> Outcome:
        """Run the next step.

        Raises
        ------
        Unsupported
            It is not what the format says, or the model cannot follow it.
        """
        index, step = self._index, self.scenario.steps[self._index]
        self._index += 1
        recorded = (step.recorded or {}).get("state")
        self.kernel.choices.take(recorded)
        self.kernel.frames.begin_step()
        try:
            answer = verbs.run(self.kernel, step.given, (index + 1) & 0xFF)
        except Errno as error:
            answer = verbs.Answer(-1, errno=error.name)
        except (OperationError, SwapDamage, FaultsForEver) as trouble:
            raise Unsupported(str(trouble)) from None
        state = self._recorder.take(contents="contents" in chain.from_iterable((recorded or {}).values()))
        return Outcome(answer.ret, answer.errno, answer.vals, answer.scan, state)
