"""The one exception people see: what went wrong, and what to do about it."""

from __future__ import annotations


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
