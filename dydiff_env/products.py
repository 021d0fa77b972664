"""Matrix products as fast as the processor can: by the better library, and in half precision where that is enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from threading import Lock

import torch

from dydiff_env.errors import DyDiffError, said

SIZE = 256  # of the trial product
_one_at_a_time, _found = Lock(), list[str]()  # the settings that those now inside fast_products met; the first's is put back by the last


@contextmanager
def fast_products(device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, float32 products go through oneDNN where that is exact; elsewhere nothing changes.

    Torch multiplies float32 matrices with MKL, which does not use the full width of AMD's vector units: oneDNN was
    seen 2.3 times as fast on a Zen 5. Torch hands float32 products to oneDNN only under its setting "medium", by
    which it allows rounding to bfloat16. Processors with matrix units (AMX) do round; there the setting is left alone.

    Args:
        device: where the work is done; only a CPU is touched.
    """
    if torch.device(device).type == "cpu":
        _keep_freed_memory()
    if torch.device(device).type != "cpu" or not _exact():
        yield
        return
    try:
        with _one_at_a_time:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("medium")
            _found.append(before)
    except RuntimeError:  # as in _exact, said since
        yield
        return
    try:
        yield
    finally:
        with _one_at_a_time:
            before = _found.pop()
            if not _found:
                torch.set_float32_matmul_precision(before)


def half_products(device: torch.device | str) -> AbstractContextManager[object]:
    """Inside, the factors of matrix products are rounded to bfloat16 where the CPU multiplies such numbers faster.

    That halves the time of a product (Zen 4: 88 and 211 billion operations a second and core), and costs all but the first two or three
    digits of its result: enough for what is learned of a correction, not for a single-step model.

    Args:
        device: where the work is done; on others than a CPU, where it was not measured, nothing changes.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.device(device).type == "cpu" and _halves())


def check_device(device: torch.device | str) -> None:
    """Make sure that torch can put something on a device.

    Raises:
        DyDiffError: saying what torch says.
    """
    try:
        if torch.empty(0, device=device).device.type not in ("cpu", "cuda", "meta"):
            raise RuntimeError("only cpu and cuda are known to work")
    except (RuntimeError, AssertionError) as error:
        raise DyDiffError(f"The device {device} cannot be used: {said(error)}.", "Use cpu.", usage=True) from error


@cache
def _halves() -> bool:
    """Whether this CPU has instructions of its own for bfloat16; torch imitates them elsewhere, slowly."""
    return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))


@cache
def _keep_freed_memory() -> None:
    """Have the memory that a layer frees used by the next one; once for a process.

    The GNU allocator returns what is free at the heap's end to the system, and every layer's result is then paged in anew: the
    denoiser took twice the time. It keeps twice as much as the largest block that it has seen freed, up to 32 MB each.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


@cache
def _exact() -> bool:
    """Whether "medium" keeps all 24 bits here."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # somebody has said it in torch's newer way, which forbids to ask in the older
        return False
    torch.set_float32_matmul_precision("medium")
    try:
        fine = torch.full((SIZE, SIZE), 1 + 2.0**-20)
        return torch.equal(fine @ torch.eye(SIZE), fine)
    finally:
        torch.set_float32_matmul_precision(before)
