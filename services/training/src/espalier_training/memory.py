"""Memory of a training process: its peak, the kernel's high-water mark or torch's own on GPUs; and what is free."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path
from types import TracebackType

_GROUP = Path("/sys/fs/cgroup")


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


def free_bytes() -> int:
    """Returns what a process may still take: of the GPU where there is one, else of the container or host."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):  # no control group of version 2, or one without a limit: "max"
        limit, used = (int((_GROUP / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        free = min(free, limit - used)
    return free


def _high_water_mark() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
