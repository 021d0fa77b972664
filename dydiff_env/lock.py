"""One process writes one folder at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dydiff_env.errors import DyDiffError


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Hold `OUT.lock` while writing to `out`; the operating system lets go of it when the process dies.

    Raises:
        DyDiffError: where another process holds it.
    """
    path = out.with_name(out.name + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DyDiffError(
            f"Another process is writing {out}.", "Wait for it, or choose another --out."
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still held: whoever comes next makes a new one
        lock.release()
