"""A mix holds every episode, and says of each step where it is from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest

from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.errors import DyDiffError
from dydiff_env.synthesis.export import export
from dydiff_env.synthesis.mix import mix


def test_every_step_knows_its_source(
    tiny_world: Any, hopper_folder: Path, hopper_dataset: Dataset, tmp_path: Path
) -> None:
    export(tiny_world, "random", tmp_path / "syn", horizon=5, batch=10, iterations=0)
    report = mix([hopper_folder], [tmp_path / "syn"], tmp_path / "mixed")
    mixed = minari.MinariDataset(tmp_path / "mixed")
    assert mixed.total_episodes == report["trajectories"] == len(hopper_dataset) + 8
    assert [source["kind"] for source in report["sources"]] == ["real", "synthetic"]
    sources = [episode.infos["source"] for episode in mixed.iterate_episodes()]
    assert [int(source[0]) for source in sources] == [0] * len(hopper_dataset) + [1] * 8
    for episode, source in zip(mixed.iterate_episodes(), sources, strict=True):
        assert len(source) == len(episode.rewards) + 1
    real = next(mixed.iterate_episodes([0]))
    assert np.allclose(real.observations, hopper_dataset.episode(0).observations)
    assert not list(tmp_path.glob("*.mixing*"))


def test_other_spaces_are_refused(hopper_folder: Path, tmp_path: Path) -> None:
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    episode = Episode(
        np.zeros((3, 2), np.float32), np.zeros((2, 2), np.float32), np.zeros(2, np.float32), False
    )
    other = Dataset.from_episodes(DatasetSpec(box, box, dataset_id="test/box-v0"), [episode])
    with pytest.raises(DyDiffError, match="test/box-v0 has the observation space"):
        mix([hopper_folder], [other], tmp_path / "mixed")
    assert not list(tmp_path.iterdir())
