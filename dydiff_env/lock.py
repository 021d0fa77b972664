"""One process writes one folder at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dydiff_env.errors import DyDiffError
from dydiff_env.publish import check_name


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Hold `OUT.lock` while writing to `out`; the operating system lets go of it when the process dies.

    Raises:
        DyDiffError: where another process holds it.
    """
    check_name(whole := Path(os.path.abspath(out)))
    path = whole.with_name(whole.name + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DyDiffError(
            f"Another process is writing {out}.", "Wait for it, or choose another --out."
        ) from None
    except NotImplementedError as error:
        raise DyDiffError(f"The file system of {path} knows no locks.", "Write to another.") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes no file that is held
            path.unlink(missing_ok=True)  # while it is still held: whoever comes next makes a new one
        lock.release()
