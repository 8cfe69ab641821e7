"""The presets, by name."""

from __future__ import annotations

from dataclasses import replace

from ptewalk.cosim.cli.gateware import export
from ptewalk.cosim.fpga.synth import CONFIGS
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.presets import CACHING, PRESETS, preset
from ptewalk.rtl.walker import WalkerConfig


def test_every_preset_can_be_exported_and_synthesised_with_and_without_tracking() -> None:
    (design,) = (parameter for parameter in export.params if parameter.name == "design")
    assert tuple(design.type.choices) == PRESETS
    assert {name for preset in PRESETS for name in (preset, f"{preset}-no-soft-dirty")} <= CONFIGS.keys()


def test_presets_that_cache() -> None:
    assert all(preset(name) == config for name, config in CACHING.items())
    small, full = CACHING["mmu-small"], CACHING["mmu"]
    assert (small.small_sets * small.small_ways, small.large_sets * small.large_ways, small.slots) == (16, 8, 4)
    assert (full.small_sets * full.small_ways, full.large_sets * full.large_ways, full.slots) == (64, 32, 8)
    assert not small.upper_entries and full.upper_entries
    assert CACHING["mmu-8walkers"] == replace(full, walkers=8, waiting=16) and full.walkers == small.walkers == 1
    assert CACHING["mmu-fast"] == replace(full, split_lookup=True, waiting=5)
    assert [config.hit_latency for config in CACHING.values()] == [3, 3, 4, 3]


def test_a_preset_goes_round_any_walker() -> None:
    walker = WalkerConfig(levels=4, tag_bits=5)
    made = preset("mmu", walker)
    assert isinstance(made, CachingMmuConfig) and made.walker == walker
