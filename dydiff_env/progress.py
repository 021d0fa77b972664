"""What a long job tells meanwhile: a bar on a terminal, one line in a pipe, said within the first seconds; TensorBoard's curves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dydiff_env.errors import DyDiffError

LOOK = 5.0  # seconds after which the pace counts as known
WORTH = 20.0  # seconds; of a shorter job nothing is said


@contextmanager
def progress_bar(description: str, total: int, show: bool = True) -> Iterator[Callable[..., None]]:
    """Yield ``advance(n=1, note="")``, which moves a bar on stderr when stderr is a terminal.

    Elsewhere (a pipe, a log file) one line says how long it will take, as soon as the pace is known.

    Args:
        description: what is being done, a few words.
        total: how many steps the whole is.
        show: False keeps quiet in both places.
    """
    bar_shown = show and sys.stderr.isatty()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    pace = _Pace(description, total, told=bar_shown or not show)
    with Progress(*columns, console=Console(stderr=True), disable=not bar_shown) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(n: int = 1, note: str | None = None) -> None:
            bar.update(task, advance=n)
            if note is not None:
                bar.update(task, note=note)
            pace.count(n)

        yield advance


class _Pace:
    """Says once how long the rest will take.

    Args:
        description: of the job.
        total: steps of the whole.
        told: nothing is to be said.
    """

    def __init__(self, description: str, total: int, told: bool) -> None:
        self.description, self.total, self.told = description, total, told
        self.done = self.first = 0
        self.began: float | None = None

    def count(self, n: int) -> None:
        """Count ``n`` more steps. The first ones are not timed: they are those of an earlier run, or warm up."""
        self.done += n
        if self.told:
            return
        now = time.monotonic()
        if self.began is None:
            self.began, self.first = now, self.done
        elif now - self.began > LOOK and self.done > self.first:
            self.told = True
            left = (now - self.began) * (self.total - self.done) / (self.done - self.first)
            announce(self.description, left, "left")


def announce(job: str, seconds: float, which: str = "in all") -> None:
    """Say on stderr how long a job will take and when it will be over, if that is worth a line.

    Args:
        job: what it is.
        seconds: estimated.
        which: "in all", or "left".
    """
    if seconds >= WORTH:
        over = datetime.now() + timedelta(seconds=seconds)
        when = over.strftime("%H:%M" if seconds < 12 * 3600 else "%a %d %b, %H:%M")
        Console(stderr=True).print(
            f"{job}: about {duration(seconds)} {which}, until {when}", highlight=False, soft_wrap=True
        )


def duration(seconds: float) -> str:
    """A length of time in the unit a person would use: 40 s, 12 min, 3.5 h, 2.1 days."""
    for limit, unit, size in ((90.0, "s", 1.0), (5400.0, "min", 60.0), (172_800.0, "h", 3600.0)):
        if seconds < limit:
            value = f"{seconds / size:.1f}" if unit == "h" else str(max(1, round(seconds / size)))
            return f"{value} {unit}"
    return f"{seconds / 86_400:.1f} days"


def summary_writer() -> type:
    """TensorBoard's ``SummaryWriter``.

    Raises:
        DyDiffError: where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise DyDiffError("TensorBoard is not installed.", 'pip install "dydiff-env[report]".') from None
    return SummaryWriter
