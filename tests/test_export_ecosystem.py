"""Minari's own tools work on an export, in both storage formats."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest

from dydiff_env.data.minari_io import load_dataset
from dydiff_env.synthesis.export import export

FORMATS = ["hdf5", "arrow"]


@pytest.fixture(scope="module", params=FORMATS)
def registered(request: pytest.FixtureRequest, tiny_world: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two registered exports of one format, in a registry of their own."""
    root = tmp_path_factory.mktemp("registry")
    before = os.environ["MINARI_DATASETS_PATH"]
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    for seed in (0, 1):
        export(
            tiny_world,
            "random",
            tmp_path_factory.mktemp("out") / "syn.minari",
            horizon=5,
            batch=10,
            seed=seed,
            iterations=1,
            data_format=request.param,
            dataset_id=f"tests/syn{seed}-v0",
        )
    yield request.param
    os.environ["MINARI_DATASETS_PATH"] = before


def test_formats_hold_the_same_arrays(tiny_world: Any, tmp_path: Path) -> None:
    for name in FORMATS:
        export(tiny_world, "random", tmp_path / name, horizon=5, batch=10, data_format=name)
    hdf5, arrow = (minari.MinariDataset(tmp_path / name) for name in FORMATS)
    assert (hdf5.total_episodes, hdf5.total_steps) == (arrow.total_episodes, arrow.total_steps)
    for a, b in zip(hdf5.iterate_episodes(), arrow.iterate_episodes(), strict=True):
        assert a.id == b.id and a.observations.dtype == b.observations.dtype
        for field in ("observations", "actions", "rewards", "terminations", "truncations"):
            assert np.array_equal(getattr(a, field), getattr(b, field)), field
    ours = [load_dataset(tmp_path / name, cache=False).spec.fingerprint for name in FORMATS]
    assert ours[0] == ours[1]


def test_arrow_keeps_dict_observations(tmp_path: Path) -> None:
    import dydiff_env.embedded as embedded

    for name in FORMATS:
        export(embedded.WORLD, "demo", tmp_path / name, horizon=4, batch=5, data_format=name)
    hdf5, arrow = (next(minari.MinariDataset(tmp_path / name).iterate_episodes()) for name in FORMATS)
    assert set(hdf5.observations) == set(arrow.observations)
    for key in hdf5.observations:
        assert np.array_equal(hdf5.observations[key], arrow.observations[key])


def test_minari_samples_filters_splits_and_combines(registered: str, tiny_world: Any) -> None:
    first, second = (minari.load_dataset(f"tests/syn{seed}-v0") for seed in (0, 1))
    first.set_seed(0)
    assert len(first.sample_episodes(3)) == 3
    ended = first.filter_episodes(lambda episode: bool(episode.terminations[-1]))
    others = first.filter_episodes(lambda episode: bool(episode.truncations[-1]))
    assert ended.total_episodes + others.total_episodes == first.total_episodes == 8
    parts = minari.split_dataset(first, [5, 3], seed=0)
    assert [part.total_episodes for part in parts] == [5, 3]
    both = minari.combine_datasets([first, second], f"tests/both-{registered}-v0")
    assert both.total_steps == first.total_steps + second.total_steps
    assert both.combined_datasets == ["tests/syn0-v0", "tests/syn1-v0"]
    assert both.recover_environment().spec.id == "Hopper-v5"
    last = next(both.iterate_episodes([15]))
    assert np.array_equal(last.observations, next(second.iterate_episodes([7])).observations)
    scores = minari.get_normalized_score(first, np.array([tiny_world.spec.ref_max_score]))
    assert scores == pytest.approx([1.0])


def test_minari_updates_metadata_and_takes_more_episodes(registered: str) -> None:
    from minari.data_collector.episode_buffer import EpisodeBuffer

    dataset = minari.load_dataset("tests/syn1-v0")
    dataset.storage.update_metadata({"description": "mine"})
    dataset.storage.update_episode_metadata([{"note": index} for index in range(dataset.total_episodes)])
    episode = next(dataset.iterate_episodes())
    dataset.update_dataset_from_buffer(
        [
            EpisodeBuffer(
                observations=episode.observations,
                actions=episode.actions,
                rewards=episode.rewards,
                terminations=episode.terminations,
                truncations=episode.truncations,
            )
        ]
    )
    again = minari.load_dataset("tests/syn1-v0")
    assert again.storage.metadata["description"] == "mine" and again.total_episodes == 9
    assert [m["note"] for m in again.storage.get_episode_metadata(range(8))] == list(range(8))
    assert np.array_equal(next(again.iterate_episodes([8])).observations, episode.observations)


@pytest.mark.parametrize("arguments", [["show", "tests/syn0-v0"], ["list", "local"]])
def test_the_minari_program_shows_it(registered: str, arguments: list[str]) -> None:
    program = "from minari.cli import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "syn0-v0" in done.stdout
    if arguments[0] == "show":
        assert "DyDiff" in done.stdout and "Hopper-v5" in done.stdout
