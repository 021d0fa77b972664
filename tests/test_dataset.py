"""Episodes of one's own: what is taken, and what is refused."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.errors import DyDiffError

SPEC = DatasetSpec(gym.spaces.Box(-9, 9, (3,)), gym.spaces.Box(-1, 1, (2,)), dataset_id="tests/own-v0")


def steps(count: int, **changes: np.ndarray) -> Episode:
    made = Episode(np.zeros((count + 1, 3)), np.zeros((count, 2)), np.zeros(count), False)
    return made._replace(**changes)


@pytest.mark.parametrize("wrong, words", [
    ({"observations": np.zeros((6, 3))}, r"episode 1 has observations \(6, 3\)"),
    ({"observations": np.zeros((4, 3))}, r"episode 1 has observations \(4, 3\)"),
    ({"actions": np.zeros(4)}, r"actions \(4,\)"),
    ({"rewards": np.zeros((4, 1))}, r"rewards \(4, 1\)"),
    ({"terminated": np.zeros(4, bool)}, r"terminated \(4,\)"),
    ({"rewards": np.array([0, 0, np.inf, 0])}, "episode 1 has a NaN or infinite number in rewards, row 2"),
    ({"observations": np.full((5, 3), np.nan)}, "in observations, row 0"),
    (steps(0)._asdict(), "episode 1 has no steps"),
])  # fmt: skip
def test_episodes_that_cannot_be_are_refused_where_they_are(wrong: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(DyDiffError, match=words):
        Dataset.from_episodes(SPEC, [steps(2), steps(4, **wrong), steps(3)])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 60))
@settings(deadline=None)
def test_blocks_are_the_whole_in_order(lengths: list[int], transitions: int) -> None:
    rng = np.random.default_rng(0)
    episodes = [Episode(rng.normal(size=(n + 1, 3)), rng.normal(size=(n, 2)), rng.normal(size=n), bool(n % 2)) for n in lengths]
    whole = Dataset.from_episodes(SPEC, episodes)
    blocks = list(whole.blocks(transitions))
    again = Dataset.from_episodes(SPEC, [block.episode(i) for block in blocks for i in range(len(block))])
    assert again.spec.fingerprint == whole.spec.fingerprint and all(len(block) for block in blocks)
    assert all(block.transitions < transitions + max(lengths) for block in blocks)


def test_no_episodes_are_no_dataset() -> None:
    with pytest.raises(DyDiffError, match="has no episodes"):
        Dataset.from_episodes(SPEC, [])


def test_actions_outside_their_space_are_counted() -> None:
    beyond = steps(4, actions=np.array([[0, 0], [0, 1.5], [-3, 0], [1.0005, -1]]))
    assert Dataset.from_episodes(SPEC, [steps(4), beyond]).outside() == 0.25
