"""In which arithmetic a candidate is trained where its spec leaves that to the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from espalier_runtime import arithmetic
from espalier_runtime.specs import Candidate


@pytest.mark.parametrize(
    ("told", "computes"),
    [
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16 avx512_fp16 amx_bf16\n", True),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16 avx512_fp16\n", False),
        ("processor : 0\nflags\t\t: fpu avx2 avx512f\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", True),
        ("model name : a bf16 processor\n", False),
        ("", False),
    ],
)
def test_what_linux_says_of_a_processor_tells_whether_bfloat16_is_faster(
    tmp_path: Path, told: str, computes: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    assert arithmetic.computes_bfloat16.__wrapped__(tmp_path / "cpuinfo") is computes


def test_a_machine_that_says_nothing_is_taken_not_to(tmp_path: Path) -> None:
    assert arithmetic.computes_bfloat16.__wrapped__(tmp_path / "none") is False


@pytest.mark.parametrize(
    ("asked", "gpus", "computes", "dtype"),
    [
        ("auto", 0, True, "bfloat16"),
        ("auto", 0, False, "float32"),
        ("auto", 1, False, "bfloat16"),
        ("float32", 1, True, "float32"),
        ("bfloat16", 0, False, "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_the_hardware_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, asked: str, gpus: int, computes: bool, dtype: str
) -> None:
    monkeypatch.setattr(arithmetic, "computes_bfloat16", lambda: computes)
    given = {"strategy": "any", "training": {"dtype": asked}, "where": {"gpus_per_worker": gpus}}
    assert arithmetic.dtype_of(Candidate.model_validate(given)) == dtype
