"""In which arithmetic a candidate is trained, where its spec leaves that to the machine.

Knows no model: bfloat16 where the processor is faster in it, else float32.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from espalier_runtime.specs.models import Candidate

_FAST = frozenset({"amx_bf16", "bf16"})  # what Linux calls the instructions: AMX, and Arm's
_FAST_UNLESS_FOR_AMX = "avx512_bf16"
_BUILT_WITH_AMX = "avx512_fp16"  # Intel's processors from Sapphire Rapids on


def dtype_of(candidate: Candidate) -> Literal["float32", "bfloat16"]:
    """Returns what `training.dtype` asks for; `auto` is bfloat16 on GPUs, and on processors that compute in it."""
    if candidate.training.dtype != "auto":
        return candidate.training.dtype
    return "bfloat16" if candidate.where.gpus_per_worker or computes_bfloat16() else "float32"


@lru_cache(maxsize=1)
def computes_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells whether this machine's processor is faster in bfloat16 than in float32; where nobody says so, it is not.

    Intel's processors that were built with AMX are slow in bfloat16 without it, as in a virtual machine that hides it.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    said = {name.strip(): value.split() for name, _, value in (line.partition(":") for line in reversed(lines))}
    flags = {*said.get("flags", ()), *said.get("Features", ())}
    hidden = _BUILT_WITH_AMX in flags and "GenuineIntel" in said.get("vendor_id", ())
    return not _FAST.isdisjoint(flags) or (_FAST_UNLESS_FOR_AMX in flags and not hidden)
