"""The one exception people see: what went wrong, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DyDiffError(Exception):
    """A problem a user can mend.

    Args:
        problem: one line saying what is wrong, with the names and numbers involved.
        fix: one line saying what to do about it.
        usage: True where the request itself was wrong (the command line then exits with 2, else with 1).
    """

    def __init__(self, problem: str, fix: str = "", *, usage: bool = False) -> None:
        super().__init__(f"{problem} {fix}".strip())
        self.problem, self.fix, self.usage = problem, fix, usage


class Note(UserWarning):
    """What a person should know and nothing stops for; commands print it as a line of its own."""


def said(error: BaseException, most: int = 200) -> str:
    """The first line of what somebody else's error says, or what it is called where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:most]


def unknown(kind: str, name: str, known: Iterable[str]) -> DyDiffError:
    """The error for a name that is none of the known ones; it asks whether a near one was meant.

    Args:
        kind: of thing: filter, preset, …
        name: what was asked for.
        known: what there is.
    """
    known = list(known)
    fix = f"{meant(name, known)}Choose one of {', '.join(known)}."
    return DyDiffError(f"There is no {kind} {name!r}.", fix, usage=True)


def meant(name: str, known: Iterable[str]) -> str:
    """ "Did you mean …? " with the known name nearest to ``name``, nothing where none is near."""
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}? " if near else ""
