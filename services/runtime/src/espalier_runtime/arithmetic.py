"""In which arithmetic a candidate is trained, where its spec leaves that to the machine.

Knows no model: bfloat16 where the processor computes in it, else float32.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from espalier_runtime.specs.models import Candidate

# What Linux calls the instructions: x86-64 by AVX-512 or AMX, and Arm.
_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def dtype_of(candidate: Candidate) -> Literal["float32", "bfloat16"]:
    """Returns what `training.dtype` asks for; `auto` is bfloat16 on GPUs, and on processors that compute in it."""
    if candidate.training.dtype != "auto":
        return candidate.training.dtype
    return "bfloat16" if candidate.where.gpus_per_worker or computes_bfloat16() else "float32"


@lru_cache(maxsize=1)
def computes_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells whether this machine's processor multiplies bfloat16; where nobody says so, it does not."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    told = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not _INSTRUCTIONS.isdisjoint(told.split())
