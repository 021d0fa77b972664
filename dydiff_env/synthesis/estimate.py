"""How long dreams will take, from two small ones."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dydiff_env.synthesis.methods import Dreamer
from dydiff_env.synthesis.rounds import RoundOptions

SMALL, LARGER = 4, 192  # dreams
WORTH = 1024  # fewer are under way sooner than it takes to find out
SLOW = 2.0  # seconds; worlds that take longer for the small one are asked no more


def dream_seconds(dreamer: Dreamer, options: RoundOptions, rounds: Iterable[int]) -> float:
    """Seconds that rounds of so many rollouts will take in one process; 0 where that is not worth finding out.

    A round's time is a part that its steps take whatever their width, and one that grows with the rollouts; the two
    are told apart by timing ``SMALL`` and ``LARGER`` dreams.

    Args:
        dreamer: makes the rounds; the counts of its policy are left as they were.
        options: of the rounds.
        rounds: rollouts of each.
    """
    rounds, world, policy = list(rounds), dreamer.world, dreamer.policy
    if sum(rounds) < WORTH:
        return 0.0
    horizon = min(options.horizon, world.horizon)

    def timed(rows: int) -> float:
        starts, began = world.sample_starts(rows, seed=0, kind=options.start), time.monotonic()
        world.dream(policy, starts, horizon, options.iterations, deterministic=options.deterministic, trust=trust)
        return time.monotonic() - began

    with policy.uncounted():
        trust = dreamer.trust if options.iterations else None
        timed(1)  # warms up
        small = timed(SMALL)
        each = small / SMALL if small > SLOW else max(0.0, timed(LARGER) - small) / (LARGER - SMALL)
    fixed = 0.0 if small > SLOW else max(0.0, small - SMALL * each)
    return sum(fixed + each * rows for rows in rounds) * options.horizon / horizon
