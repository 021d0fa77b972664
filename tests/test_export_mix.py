"""A mix holds every episode, and says of each step where it is from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest

from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.flattening import same_but_for_precision
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
    assert not list(tmp_path.glob("*.mixed*"))


def test_open_datasets_mix_with_the_episodes_they_were_filtered_to(
    hopper_folder: Path, hopper_dataset: Dataset, tmp_path: Path
) -> None:
    some = minari.MinariDataset(hopper_folder).filter_episodes(lambda episode: episode.id < 3)
    report = mix([some], [hopper_dataset], tmp_path / "mixed")
    assert report["trajectories"] == 3 + len(hopper_dataset)
    with pytest.raises(DyDiffError, match="is one of the datasets to mix"):
        mix([minari.MinariDataset(tmp_path / "mixed")], [], tmp_path / "mixed", overwrite=True)


def test_a_taken_id_is_told_before_anything_is_written(
    hopper_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    mix([hopper_folder], [], tmp_path / "first", dataset_id="demo/mix-v0")
    with pytest.raises(DyDiffError, match="demo/mix-v0 exists"):
        mix([hopper_folder], [], tmp_path / "second", dataset_id="demo/mix-v0")
    assert not (tmp_path / "second").exists()


def test_an_id_that_is_mixed_is_not_replaced(hopper_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    mix([hopper_folder], [], tmp_path / "first", dataset_id="demo/log-v0")
    with pytest.raises(DyDiffError, match="demo/log-v0 is one of the datasets to mix"):
        mix(["demo/log-v0"], [hopper_folder], tmp_path / "second", dataset_id="demo/log-v0", overwrite=True)
    assert not (tmp_path / "second").exists()


def test_other_spaces_are_refused(hopper_folder: Path, tmp_path: Path) -> None:
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    episode = Episode(
        np.zeros((3, 2), np.float32), np.zeros((2, 2), np.float32), np.zeros(2, np.float32), False
    )
    other = Dataset.from_episodes(DatasetSpec(box, box, dataset_id="test/box-v0"), [episode])
    with pytest.raises(DyDiffError, match="test/box-v0 has the observation space"):
        mix([hopper_folder], [other], tmp_path / "mixed")
    assert not list(tmp_path.iterdir())


def test_float32_and_float64_logs_of_one_environment_mix(hopper_folder: Path, tmp_path: Path) -> None:
    hopper = minari.MinariDataset(hopper_folder)
    wide = gym.spaces.Box(-np.inf, np.inf, hopper.observation_space.shape, np.float64)
    narrow = gym.spaces.Box(-np.inf, np.inf, wide.shape, np.float32)
    other = narrow if hopper.observation_space.dtype == np.float64 else wide
    episode = Episode(
        np.zeros((3, 11), np.float32), np.zeros((2, 3), np.float32), np.zeros(2, np.float32), False
    )
    spec = DatasetSpec(other, hopper.action_space, dataset_id="test/other-v0")
    mix([hopper_folder, Dataset.from_episodes(spec, [episode])], [], tmp_path / "mixed")
    mixed = minari.MinariDataset(tmp_path / "mixed")
    assert mixed.observation_space == hopper.observation_space
    assert mixed.total_episodes == hopper.total_episodes + 1
    last = next(mixed.iterate_episodes([hopper.total_episodes]))
    assert last.observations.dtype == mixed.observation_space.dtype


@pytest.mark.parametrize(
    "other",
    [
        gym.spaces.Box(-1, 1, (2,), np.float64),
        gym.spaces.Dict(a=gym.spaces.Box(-1, 1, (2,), np.float32)),
        gym.spaces.Box(-1, 2, (2,), np.float32),
        gym.spaces.Box(-1, 1, (3,), np.float32),
        gym.spaces.Box(-1, 1, (2,), np.int32),
    ],
)
def test_only_precision_is_let_pass(other: gym.Space) -> None:
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    same = isinstance(other, gym.spaces.Box) and other.dtype == np.float64
    assert same_but_for_precision(box, other) == same_but_for_precision(other, box) == same
    assert same_but_for_precision(gym.spaces.Dict(a=box), gym.spaces.Dict(a=other)) == same
