"""Reading any Minari dataset, and refusing what cannot be learnt from."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from minari import DataCollector

from dydiff_env.data import cache as cache_module
from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.minari_io import load_dataset, write_dataset
from dydiff_env.errors import DyDiffError


def minari_pendulum(dataset_id: str, data_format: str, wrap=lambda env: env) -> minari.MinariDataset:
    """A dataset as Minari's own collector makes it."""
    env = DataCollector(wrap(gym.make("Pendulum-v1", max_episode_steps=12)), data_format=data_format)
    for seed in range(3):
        env.reset(seed=seed)
        done = False
        while not done:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            done = terminated or truncated
    return env.create_dataset(dataset_id, author="tests", code_permalink="none", author_email="none",
                              algorithm_name="random", eval_env="Pendulum-v1")


class AsDict(gym.ObservationWrapper):
    """The pendulum's angle and speed as a nested Dict whose keys are not in alphabetical order."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        box = gym.spaces.Box(-10, 10, (1,), np.float64)
        self.observation_space = gym.spaces.Dict(
            {"speed": box, "angle": gym.spaces.Dict({"sin": box, "cos": box})})

    def observation(self, observation):
        cos, sin, speed = np.asarray(observation, np.float64)[:, None]
        return {"speed": speed, "angle": {"sin": sin, "cos": cos}}


def altered(dataset: Dataset, folder: Path, change) -> Path:
    """A copy on disk whose HDF5 file went through ``change``."""
    write_dataset(folder, dataset)
    with h5py.File(folder / "main_data.hdf5", "r+") as file:
        change(file)
    return folder


@pytest.fixture(scope="module")
def small(hopper_dataset) -> Dataset:
    return Dataset.from_episodes(hopper_dataset.spec, [hopper_dataset.episode(i) for i in range(5)])


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("wrap", [lambda env: env, AsDict], ids=["box", "dict"])
def test_what_minari_wrote_is_read_as_gymnasium_flattens_it(data_format, wrap):
    dataset_id = f"tests/{data_format}-{'dict' if wrap is AsDict else 'box'}-v0"
    theirs = minari_pendulum(dataset_id, data_format, wrap)
    ours = load_dataset(dataset_id)
    assert len(ours) == 3 and ours.transitions == theirs.total_steps == 36
    for i, episode in enumerate(theirs.iterate_episodes()):
        mine = ours.episode(i)
        for t in range(13):
            step = at_step(episode.observations, t)
            np.testing.assert_allclose(mine.observations[t], gym.spaces.flatten(ours.spec.observation_space, step),
                                       rtol=1e-6)
        np.testing.assert_allclose(mine.actions, episode.actions, rtol=1e-6)
        np.testing.assert_allclose(mine.rewards, episode.rewards, rtol=1e-6)
        assert mine.terminated == bool(episode.terminations[-1])
    assert ours.spec.observation_space == theirs.observation_space


def at_step(values, t: int):
    """Step t of a (nested dict of) arrays."""
    return {key: at_step(part, t) for key, part in values.items()} if isinstance(values, dict) else values[t]


def test_a_time_out_bootstraps_and_a_terminal_does_not():
    spec = DatasetSpec(gym.spaces.Box(-1, 1, (1,)), gym.spaces.Box(-1, 1, (1,)))
    column = np.arange(3, dtype=np.float32)[:, None]
    data = Dataset.from_episodes(spec, [Episode(column, column[:2], column[:2, 0], True),
                                        Episode(column + 9, column[:2], column[:2, 0], False)])
    flat = data.flat()
    assert flat.terminated.tolist() == [0, 1, 0, 0]
    assert flat.ends.tolist() == [False, True, False, True]
    assert flat.next_observations[:, 0].tolist() == [1, 2, 10, 11]  # never across two episodes
    assert data.returns.tolist() == [1, 1]


def test_the_second_load_is_memory_mapped_and_follows_changes(small, tmp_path):
    folder = write_dataset(tmp_path / "a", small)
    first, second = load_dataset(folder), load_dataset(folder)
    assert isinstance(second.observations.base, np.memmap)
    assert first.spec == second.spec and np.array_equal(first.observations, small.observations)
    write_dataset(folder, replace(small, rewards=small.rewards + 1), overwrite=True)
    assert np.array_equal(load_dataset(folder).rewards, small.rewards + 1)


@pytest.mark.parametrize("damage", ["truncate", "remove", "header"])
def test_a_damaged_cache_is_rebuilt(small, tmp_path, damage):
    folder = write_dataset(tmp_path / "a", small)
    load_dataset(folder)
    victim = cache_module.cache_entry(folder) / "observations.npy"
    if damage == "truncate":
        os.truncate(victim, victim.stat().st_size // 2)
    elif damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes(b"nonsense")
    assert np.array_equal(load_dataset(folder).observations, small.observations)


def test_an_unwritable_cache_does_not_matter(small, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DYDIFF_ENV_CACHE", str(tmp_path / "file"))
    assert load_dataset(write_dataset(tmp_path / "a", small)).transitions == small.transitions


def test_a_mistyped_id_is_answered_with_a_near_one():
    minari_pendulum("tests/pendulum-near-v0", "hdf5")
    with pytest.raises(DyDiffError, match="Did you mean tests/pendulum-near-v0"):
        load_dataset("tests/pendulum-naer-v0")


def test_a_missing_folder_and_a_file_say_so(tmp_path):
    with pytest.raises(DyDiffError, match="neither a folder nor a Minari id"):
        load_dataset(tmp_path / "nothing")
    (tmp_path / "x.hdf5").write_text("")
    with pytest.raises(DyDiffError, match="import-d4rl"):
        load_dataset(tmp_path / "x.hdf5")
    with pytest.raises(DyDiffError, match=r"no metadata\.json"):
        load_dataset(tmp_path)


def test_discrete_actions_and_images_are_refused(tmp_path):
    box, image = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    whole = gym.spaces.Box(-3, 3, (2,), np.int64)
    for name, spec, message in (
            ("discrete", DatasetSpec(box, gym.spaces.Discrete(2)), "has Discrete actions"),
            ("image", DatasetSpec(image, box), "is an image"),
            ("inside", DatasetSpec(gym.spaces.Dict(camera=image), box), "'camera' of .* is an image"),
            ("steps", DatasetSpec(box, whole), "has int64 actions"),
            ("counts", DatasetSpec(gym.spaces.Dict(count=whole), box), "'count' of .* is a Box of int64"),
            ("text", DatasetSpec(gym.spaces.Dict(say=gym.spaces.Text(3)), box), "'say' of .* is a Text")):
        folder = tmp_path / name
        minari.dataset.minari_storage.MinariStorage.new(folder, spec.observation_space, spec.action_space)
        with pytest.raises(DyDiffError, match=message):
            load_dataset(folder)


@pytest.mark.parametrize("field", ["observations", "actions", "rewards"])
def test_a_number_that_is_none_is_named(small, tmp_path, field):
    def poison(file: h5py.File) -> None:
        values = file[f"episode_3/{field}"][()]
        values[1] = np.nan
        file[f"episode_3/{field}"][...] = values

    with pytest.raises(DyDiffError, match=f"episode 3 .*{field}, row 1"):
        load_dataset(altered(small, tmp_path / "a", poison))
    kept = minari.MinariDataset(str(tmp_path / "a")).filter_episodes(lambda episode: episode.id != 3)
    assert np.array_equal(load_dataset(kept).lengths, np.delete(small.lengths, 3))  # what the message advises


def test_an_empty_dataset_is_refused(tmp_path):
    box = gym.spaces.Box(-1, 1, (2,))
    minari.dataset.minari_storage.MinariStorage.new(tmp_path / "a", box, box)
    for content in (b"", None):
        if content is None:
            h5py.File(tmp_path / "a" / "main_data.hdf5", "w").close()
        with pytest.raises(DyDiffError, match=r"is empty|cannot be read"):
            load_dataset(tmp_path / "a")


def test_broken_files_are_refused(small, tmp_path):
    folder = write_dataset(tmp_path / "cut", small)
    os.truncate(folder / "main_data.hdf5", 3000)
    with pytest.raises(DyDiffError, match="cannot be read"):
        load_dataset(folder)
    with pytest.raises(DyDiffError, match="cannot be read"):
        load_dataset(altered(small, tmp_path / "gone", lambda file: file.__delitem__("episode_2/actions")))
    folder = write_dataset(tmp_path / "text", small)
    (folder / "metadata.json").write_text(json.dumps({})[:1])
    with pytest.raises(DyDiffError, match="cannot be read"):
        load_dataset(folder)
    folder = write_dataset(tmp_path / "lost", small)
    shutil.move(folder / "main_data.hdf5", tmp_path / "elsewhere")
    with pytest.raises(DyDiffError, match="cannot be read"):
        load_dataset(folder)


def test_the_specification_survives_json(hopper_dataset):
    again = DatasetSpec.from_json(hopper_dataset.spec.to_json())
    assert again == hopper_dataset.spec
    assert (again.observation_size, again.action_size) == (11, 3)
