"""The recorded answers that come with the package: what real engines and real kernels said."""

from pathlib import Path
from typing import Final

__all__ = ["FEATURE_OFF", "KERNELS", "WALKS"]

_DATA: Final = Path(__file__).with_name("data")

WALKS: Final = _DATA / "x86-walks-sample.jsonl.gz"
"""3,000 page walks on which QEMU, two versions of Bochs, and Unicorn where it can, agree."""
KERNELS: Final = {
    profile: _DATA / f"{profile}-sample.jsonl.gz"
    for profile in ("linux-seed", "linux-3.11", "linux-6.1", "linux-6.12", "linux-6.18", "linux-7.3")
}
"""Profile to scenarios recorded on that kernel."""
FEATURE_OFF: Final = _DATA / "linux-3.11-feature-off-sample.jsonl.gz"
"""Scenarios recorded on 3.11 with CONFIG_MEM_SOFT_DIRTY=n."""
