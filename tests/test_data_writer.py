"""Minari folders that appear whole or not at all, and that Minari itself opens."""

from __future__ import annotations

import json
from dataclasses import replace

import gymnasium as gym
import minari
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dydiff_env.data import cache, minari_writer
from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.flattening import flatten_batch, unflatten_batch
from dydiff_env.data.minari_io import load_dataset, write_dataset
from dydiff_env.data.minari_writer import MinariWriter
from dydiff_env.data.registry import dataset_id_for, register
from dydiff_env.data.simulator import make_env
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.scores import environment_of

BOX = gym.spaces.Box(-1, 1, (2,), np.float32)
DICT = gym.spaces.Dict(
    position=gym.spaces.Box(-9, 9, (2, 2), np.float64), inner=gym.spaces.Dict(b=BOX, a=gym.spaces.Box(-1, 1, (1,))))


def rollouts(n: int, horizon: int = 6, seed: int = 0, size: int = 2) -> Trajectories:
    rng = np.random.default_rng(seed)
    return Trajectories(*(rng.uniform(-1, 1, shape).astype(np.float32)
                          for shape in ((n, horizon + 1, size), (n, horizon, 2), (n, horizon))),
                        rng.random(n) < 0.5, rng.integers(1, horizon + 1, n))


def test_minari_opens_what_was_written(hopper_dataset, tmp_path):
    spec = replace(hopper_dataset.spec, dataset_id="tests/written-v0")
    folder = write_dataset(tmp_path / "syn.minari", replace(hopper_dataset, spec=spec), algorithm_name="DyDiff",
                           provenance={"seed": 3})
    theirs = minari.MinariDataset(folder)
    assert (theirs.id, theirs.total_episodes) == ("tests/written-v0", len(hopper_dataset))
    assert theirs.total_steps == hopper_dataset.transitions
    assert theirs.observation_space == spec.observation_space
    with theirs.recover_environment() as env:
        assert env.spec.id == "Hopper-v5"
    metadata = theirs.storage.metadata
    assert (metadata["ref_min_score"], metadata["ref_max_score"]) == (20.0, 3400.0)
    assert json.loads(metadata["dydiff_env"]) == {"seed": 3}
    for i in (0, 7, len(hopper_dataset) - 1):
        mine, episode = hopper_dataset.episode(i), theirs[i]
        np.testing.assert_array_equal(episode.observations, mine.observations)
        assert spec.observation_space.contains(episode.observations[0])
        assert spec.action_space.contains(episode.actions[0])
        assert episode.terminations[-1] == mine.terminated != episode.truncations[-1]
        assert not episode.terminations[:-1].any() and not episode.truncations[:-1].any()
    assert [episode["total_steps"] for episode in theirs.storage.get_episode_metadata([0, 1])] == list(
        hopper_dataset.lengths[:2])


@pytest.mark.parametrize(("author", "names"), [("Jane Doe", {"Jane Doe"}), (["Jane", "Joe"], {"Jane", "Joe"}), ({"Jane"}, {"Jane"})])
def test_an_author_may_be_one_name_or_several(hopper_dataset, tmp_path, author, names):
    folder = write_dataset(tmp_path / "a", hopper_dataset, author=author)
    assert minari.MinariDataset(folder).storage.metadata["author"] == names


def test_older_releases_of_hdf5_can_open_it(hopper_dataset, tmp_path):
    write_dataset(tmp_path / "a", hopper_dataset)
    signature = (tmp_path / "a" / "main_data.hdf5").read_bytes()[:9]
    assert signature[1:4] == b"HDF" and signature[8] <= 2  # the superblock of release 1.8


def test_scores_may_be_of_numpy(hopper_dataset, tmp_path):
    spec = replace(hopper_dataset.spec, ref_min_score=np.float32(1), ref_max_score=np.mean(hopper_dataset.rewards))
    write_dataset(tmp_path / "a", replace(hopper_dataset, spec=spec))
    assert load_dataset(tmp_path / "a").spec.ref_min_score == 1.0


def test_the_environment_of_evaluation_is_the_one_that_is_known(hopper_dataset, tmp_path):
    """Minari's logs of D4RL's mazes were made with a limit of 1e6 steps, and name another environment to judge in."""
    metadata = write_dataset(tmp_path / "a", hopper_dataset) / "metadata.json"
    known = json.loads(metadata.read_text())
    endless = json.loads(known["env_spec"]) | {"max_episode_steps": 1e6}
    metadata.write_text(json.dumps(known | {"env_spec": json.dumps(endless)}))
    assert environment_of(load_dataset(tmp_path / "a").spec).max_episode_steps == 1_000_000
    make_env(json.dumps(endless)).close()
    metadata.write_text(json.dumps(known | {"env_spec": json.dumps(endless), "eval_env_spec": known["env_spec"]}))
    judged = load_dataset(tmp_path / "a").spec
    assert environment_of(judged).max_episode_steps == 1000
    assert judged.environment == environment_of(judged) and replace(judged, env_spec=None).environment is None


def test_an_entry_of_the_cache_that_is_whole_stays(hopper_dataset, tmp_path):
    """Another process may have mapped it."""
    cache.write_entry(tmp_path / "entry", hopper_dataset)
    before = (tmp_path / "entry").stat().st_ino
    cache.write_entry(tmp_path / "entry", hopper_dataset)
    assert (tmp_path / "entry").stat().st_ino == before and not list(tmp_path.glob("*.partial"))
    (tmp_path / "entry" / "actions.npy").write_bytes(b"")
    assert cache.write_entry(tmp_path / "entry", hopper_dataset).transitions == hopper_dataset.transitions
    assert (tmp_path / "entry").stat().st_ino != before


def test_a_name_that_hdf5_cannot_hold_is_refused_at_once(tmp_path):
    inner = gym.spaces.Dict({"walker/height": BOX})
    spec = DatasetSpec(gym.spaces.Dict(body=inner), BOX, dataset_id="tests/slash-v0")
    with pytest.raises(DyDiffError, match="'walker/height' has a slash"):
        MinariWriter(tmp_path / "x", spec)
    assert not list(tmp_path.iterdir())
    with MinariWriter(tmp_path / "x", spec, data_format="arrow") as writer:
        writer.append(rollouts(3))
        writer.publish()
    assert load_dataset(tmp_path / "x").spec.observation_space == spec.observation_space


def test_dict_observations_keep_their_form(tmp_path):
    spec = DatasetSpec(DICT, BOX, dataset_id="tests/dict-v0")
    batch = rollouts(4, size=7)
    with MinariWriter(tmp_path / "d", spec) as writer:
        writer.append(batch)
        folder = writer.publish()
    episode = minari.MinariDataset(folder)[2]
    assert episode.observations["position"].shape == (batch.lengths[2] + 1, 2, 2)
    first = {"position": episode.observations["position"][0],
             "inner": {key: episode.observations["inner"][key][0] for key in "ab"}}
    assert DICT.contains(first)
    np.testing.assert_allclose(gym.spaces.flatten(spec.observation_space, first), batch.observations[2, 0])
    np.testing.assert_array_equal(load_dataset(folder).episode(2).observations,
                                  batch.observations[2, :batch.lengths[2] + 1])


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(0, 99))
def test_flattening_and_back_changes_nothing(rows, seed):
    values = np.random.default_rng(seed).uniform(-1, 1, (rows, 7)).astype(np.float32)
    np.testing.assert_array_equal(flatten_batch(DICT, unflatten_batch(DICT, values)), values)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_bounds_that_are_no_float32_are_not_overstepped(tmp_path, data_format):
    box = gym.spaces.Box(np.array([-0.1, -0.7]), np.array([0.1, 0.7]), dtype=np.float64)
    assert not box.contains(box.high.astype(np.float32).astype(np.float64))
    spec = DatasetSpec(gym.spaces.Dict(inner=box), box, dataset_id="tests/bounds-v0")
    rows = np.array([[-0.1, -0.7], [0.1, 0.7], [0.05, -0.3]], np.float32)
    with MinariWriter(tmp_path / "d", spec, data_format=data_format) as writer:
        writer.append([Episode(rows, rows[:2], np.zeros(2, np.float32), False)])
        folder = writer.publish()
    episode = minari.MinariDataset(folder)[0]
    for values in (episode.observations["inner"], episode.actions):
        assert all(box.contains(row) for row in values)
        np.testing.assert_array_equal(values.astype(np.float32), rows[: len(values)])


def test_nothing_is_published_before_the_end_or_after_a_failure(tmp_path):
    spec, path = DatasetSpec(BOX, BOX, dataset_id="tests/fail-v0"), tmp_path / "x"
    with pytest.raises(RuntimeError), MinariWriter(path, spec) as writer:
        writer.append(rollouts(3))
        assert not path.exists()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DyDiffError, match="would be empty"), MinariWriter(path, spec) as writer:
        writer.publish()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    spec, path = DatasetSpec(BOX, BOX, dataset_id="tests/resume-v0"), tmp_path / "x"
    killed = MinariWriter(path, spec, resumable=True)
    killed.append(rollouts(3, seed=0), {"round": 0})
    (killed.partial / "parts" / "unfinished.npz").write_bytes(b"half a batch")  # the kill came while writing
    with pytest.raises(DyDiffError, match="Go on with --resume"):
        MinariWriter(path, spec, resumable=True)
    with pytest.raises(DyDiffError, match="Start anew with --overwrite"):  # from a command that cannot go on
        MinariWriter(path, spec)
    with MinariWriter(path, spec, resume=True) as writer:
        assert (writer.parts, writer.trajectories, writer.notes) == (1, 3, [{"round": 0}])
        writer.append(rollouts(2, seed=1), {"round": 1})
        resumed = load_dataset(writer.publish())
    with MinariWriter(tmp_path / "y", spec) as writer:
        writer.append(rollouts(3, seed=0))
        writer.append(rollouts(2, seed=1))
        whole = load_dataset(writer.publish())
    assert resumed.spec.fingerprint == whole.spec.fingerprint
    assert not writer.partial.exists()


def test_episodes_are_taken_one_by_one_and_written_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(minari_writer, "BLOCK", 10)
    spec = DatasetSpec(BOX, BOX, dataset_id="tests/taken-v0")
    data = Dataset.from_trajectories(spec, rollouts(9))
    with MinariWriter(tmp_path / "x", spec) as writer:
        for index in range(7):
            writer.take(data.episode(index))
        assert 1 < writer.parts < writer.trajectories < 7  # some wait to be written
        writer.append([data.episode(7)])
        writer.take(data.episode(8))
        assert load_dataset(writer.publish()).spec.fingerprint == data.spec.fingerprint  # in their order


def test_existing_data_is_replaced_only_when_asked(tmp_path):
    spec, path = DatasetSpec(BOX, BOX, dataset_id="tests/over-v0"), tmp_path / "x"
    data = Dataset.from_trajectories(spec, rollouts(2))
    write_dataset(path, data)
    with pytest.raises(DyDiffError, match="--overwrite"):
        write_dataset(path, data)
    write_dataset(path, Dataset.from_trajectories(spec, rollouts(5)), overwrite=True)
    assert len(load_dataset(path)) == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_registered_folder_is_found_by_its_id(tmp_path):
    spec = DatasetSpec(BOX, BOX, dataset_id="local/x-v0")
    folder = write_dataset(tmp_path / "x", Dataset.from_trajectories(spec, rollouts(2)))
    register(folder, "tests/registered-v3")
    assert minari.load_dataset("tests/registered-v3").id == "tests/registered-v3"
    assert load_dataset("tests/registered-v3").spec.dataset_id == "tests/registered-v3"
    with pytest.raises(DyDiffError, match="exists"):
        register(folder, "tests/registered-v3")


@pytest.mark.parametrize("name", ["no-version", "a b/c-v0", "", "../up-v0"])
def test_an_id_minari_would_refuse_is_refused_at_once(name, tmp_path):
    with pytest.raises(DyDiffError, match="no Minari dataset id"):
        MinariWriter(tmp_path / "x", DatasetSpec(BOX, BOX, dataset_id=name))


def test_a_folder_gets_an_id_from_its_name():
    assert dataset_id_for("runs/syn.minari") == "local/syn-v0"
    assert dataset_id_for("runs/my data-v2") == "local/my-data-v2"


def test_minari_can_add_to_it(tmp_path):
    """The file is an ordinary Minari one: Minari's own storage appends to it."""
    spec = DatasetSpec(BOX, BOX, dataset_id="tests/add-v0")
    folder = write_dataset(tmp_path / "x", Dataset.from_trajectories(spec, rollouts(2)))
    theirs, episode = minari.MinariDataset(folder), rollouts(1)
    steps = 6
    theirs.update_dataset_from_buffer([minari.data_collector.EpisodeBuffer(
        observations=episode.observations[0], actions=episode.actions[0], rewards=list(episode.rewards[0]),
        terminations=[False] * steps, truncations=[False] * (steps - 1) + [True])])
    assert len(load_dataset(folder)) == 3


def test_episodes_in_memory_are_the_same_as_rollouts():
    spec, batch = DatasetSpec(BOX, BOX), rollouts(4)
    episodes = [Episode(batch.observations[i, :n + 1], batch.actions[i, :n], batch.rewards[i, :n],
                        bool(batch.terminations[i])) for i, n in enumerate(batch.lengths)]
    one, other = Dataset.from_trajectories(spec, batch), Dataset.from_episodes(spec, episodes)
    assert one.spec.fingerprint == other.spec.fingerprint
