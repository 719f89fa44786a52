"""Peak memory of a training process: the kernel's high-water mark, reset first; on GPUs torch's own."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path
from types import TracebackType


class PeakMemory:
    """Measures the most memory, in bytes, that this process held inside the `with` block."""

    def __init__(self) -> None:
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        with contextlib.suppress(OSError):  # not Linux, or not allowed: the mark of the whole process stands
            Path("/proc/self/clear_refs").write_text("5")
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bytes = _high_water_mark()
        import torch

        if torch.cuda.is_available():
            self.bytes = int(torch.cuda.max_memory_allocated())


def _high_water_mark() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
