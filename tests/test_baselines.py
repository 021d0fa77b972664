"""Every method of `export` makes data that can be trained on; the baselines are trained once and say so when missing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dydiff_env.agents import Replay, agent_class
from dydiff_env.baselines import mtdiff, synther
from dydiff_env.baselines.fit import fit_baseline, fit_models, parse_models
from dydiff_env.baselines.models import load
from dydiff_env.baselines.synther import SynthER, SynthERConfig
from dydiff_env.cli.app import app
from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.errors import DyDiffError
from dydiff_env.synthesis.export import export
from dydiff_env.synthesis.methods import METHODS, TransitionSampler, get_method
from dydiff_env.synthesis.rounds import RoundOptions
from dydiff_env.world.batches import Batches
from dydiff_env.world.presets import PRESETS
from dydiff_env.world.training import TrainingConfig, train


@pytest.fixture(scope="module")
def full_world(hopper_dataset: Dataset, tiny_world_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny hopper world with both baselines."""
    path = tmp_path_factory.mktemp("full") / "world"
    shutil.copytree(tiny_world_path, path)
    for name in ("synther", "mtdiff-s"):
        fit_baseline(name, hopper_dataset, path, preset="tiny")
    return path


@pytest.mark.parametrize("method", METHODS)
def test_every_method_exports_and_trains_td3bc(
    method: str, full_world: Path, hopper_dataset: Dataset, tmp_path: Path
) -> None:
    policy = "random" if get_method(method).follows_policy else None
    horizon = None if get_method(method).horizon == 1 else 6
    report = export(full_world, policy, tmp_path / "syn", method=method, batch=20, horizon=horizon)
    dataset = minari.MinariDataset(tmp_path / "syn")
    kept = 20 if method in ("synther", "mtdiff-s") else 16
    assert dataset.total_episodes == report["trajectories"] == kept
    for episode in dataset.iterate_episodes():
        assert episode.terminations[-1] != episode.truncations[-1]
        assert all(episode.actions[i] in dataset.action_space for i in range(len(episode.actions)))
    if get_method(method).horizon == 1:
        assert dataset.total_steps == kept
    made = load_dataset(tmp_path / "syn", cache=False)
    agent = agent_class("td3bc")(made.spec, seed=0)
    agent.fit(Replay(hopper_dataset, [made]), 3)
    assert torch.isfinite(agent.act(torch.zeros(2, made.spec.observation_size))).all()


def test_a_dict_world_exports_by_every_method(tmp_path: Path) -> None:
    """PointMaze: Dict observations, no terminations."""
    pytest.importorskip("gymnasium_robotics")
    import dydiff_env.embedded as embedded
    from dydiff_env.world.world import World

    world = World.load(embedded.WORLD)
    dreams = world.dream(_idle(world), world.sample_starts(40, seed=0), horizon=20, iterations=0)
    data = Dataset.from_trajectories(world.spec, dreams)
    folder = tmp_path / "world"
    shutil.copytree(embedded.WORLD, folder)
    document = json.loads((folder / "world.json").read_text())
    document["spec"]["fingerprint"] = data.spec.fingerprint  # as if the world had been fitted to these data
    (folder / "world.json").write_text(json.dumps(document))
    fit_models(["synther", "mtdiff-s"], data, folder, preset="tiny")
    for method, facts in METHODS.items():
        export(
            folder,
            "random" if facts.follows_policy else None,
            tmp_path / method,
            method=method,
            batch=10,
            horizon=None if facts.horizon == 1 else 5,
        )
        dataset = minari.MinariDataset(tmp_path / method)
        first = next(dataset.iterate_episodes())
        assert set(first.observations) == {"observation", "achieved_goal", "desired_goal"}
        made = load_dataset(tmp_path / method, cache=False)
        agent = agent_class("td3bc")(made.spec, seed=0)
        agent.fit(Replay(data, [made]), 2)


def _idle(world: Any) -> Any:
    from dydiff_env.policies import load_policy

    return load_policy("random", world.spec)


def test_synther_learns_a_joint_distribution() -> None:
    """s' = s + a, r = s, and the end where s' > 1: what is drawn keeps to all three."""
    import gymnasium as gym

    rng = np.random.default_rng(0)
    states = rng.normal(0, 1, (4000, 1)).astype(np.float32)
    actions = rng.uniform(-1, 1, (4000, 1)).astype(np.float32)
    episodes = [
        Episode(np.stack([s, s + a]), a[None], np.array([s[0]], np.float32), bool(s[0] + a[0] > 1))
        for s, a in zip(states, actions, strict=True)
    ]
    spec = DatasetSpec(gym.spaces.Box(-np.inf, np.inf, (1,)), gym.spaces.Box(-1, 1, (1,)))
    data = Dataset.from_episodes(spec, episodes)
    config = SynthERConfig(
        width=96, depth=3, training=TrainingConfig(steps=1500, batch=256, learning_rate=3e-3, ema=0.99)
    )
    torch.manual_seed(0)
    model, batches = SynthER(spec, config), Batches(data, Normalizer(torch.zeros(1), torch.ones(1)))
    model.measure(batches, torch.arange(4000))
    train(
        "synther",
        model,
        lambda g, _: model.loss(batches, torch.randint(4000, (256,), generator=g), g),
        config.training,
        seed=0,
    )
    drawn = model.draw(2000, seed=1)
    assert abs(float(drawn.observations.std()) - 1) < 0.1
    assert (drawn.next_observations - drawn.observations - drawn.actions).abs().mean() < 0.12
    assert (drawn.rewards - drawn.observations[:, 0]).abs().mean() < 0.12
    called = drawn.terminated == (drawn.next_observations[:, 0] > 1)
    assert called.float().mean() > 0.95
    again = model.draw(2000, seed=1)
    assert torch.equal(drawn.observations, again.observations)


def test_mtdiff_windows_chain_and_actions_stay_inside(full_world: Path, tiny_world: Any) -> None:
    model: Any = load(full_world, "mtdiff-s", tiny_world.spec)
    starts = tiny_world.normalizer.normalize(torch.from_numpy(tiny_world.sample_starts(3, seed=0)))
    states, actions, _ = model.draw(starts, model.horizon + 5, seed=0)
    assert states.shape == (3, model.horizon + 6, 11) and actions.shape == (3, model.horizon + 5, 3)
    assert torch.equal(states[:, 0], starts) and actions.abs().max() <= 1 and torch.isfinite(states).all()


def test_a_killed_fit_of_a_baseline_goes_on(
    hopper_dataset: Dataset, tiny_world_path: Path, full_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dydiff_env.baselines.fit as module

    path, whole = tmp_path / "world", (full_world / "synther.safetensors").read_bytes()
    shutil.copytree(tiny_world_path, path)

    def killed(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        done = train(name, *args, **kwargs)
        assert done["steps"] == 400 and kwargs["checkpoint"].exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_baseline("synther", hopper_dataset, path, preset="tiny")
    monkeypatch.undo()
    with pytest.raises(DyDiffError, match="unfinished fit of another"):
        fit_baseline("synther", hopper_dataset, path, preset="tiny", seed=1)
    with pytest.raises(DyDiffError, match=r"no synther model.*fit --dataset"):
        load(path, "synther", hopper_dataset.spec)
    fit_baseline("synther", hopper_dataset, path, preset="tiny")
    assert (path / "synther.safetensors").read_bytes() == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["world"]


def test_several_models_keep_what_is_there(hopper_dataset: Dataset, full_world: Path, tmp_path: Path) -> None:
    path = tmp_path / "world"
    shutil.copytree(full_world, path)
    (path / "synther.json").unlink()
    stamps = {p.name: p.stat().st_mtime_ns for p in path.iterdir()}
    fit_models(["world", "synther", "mtdiff-s"], hopper_dataset, path, preset="tiny")
    changed = {p.name for p in path.iterdir() if stamps.get(p.name) != p.stat().st_mtime_ns}
    assert changed == {"synther.json", "synther.safetensors"}
    with pytest.raises(DyDiffError, match="has a synther model"):
        fit_models(["synther"], hopper_dataset, path, preset="tiny")
    assert parse_models("all") == ["world", "synther", "mtdiff-s"] == parse_models("mtdiff-s,world,synther")
    with pytest.raises(DyDiffError, match="no model 'mtdiff'"):
        parse_models("world,mtdiff")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "diffuser", "policy": "random"}, "no method 'diffuser'"),
        ({"method": "synther", "policy": "random"}, "follows no policy"),
        ({"method": "dydiff", "policy": None}, "rolls out a policy"),
        ({"method": "synther", "policy": None, "horizon": 5}, "single transitions"),
        ({"method": "synther", "policy": None, "filter": "softmax"}, "synther-filtered"),
        ({"method": "single-step", "policy": "random", "iterations": 2}, "refines nothing"),
        ({"method": "mtdiff-s", "policy": None, "max_uncertainty": 1.0}, "have no uncertainties"),
        ({"engine": "spark", "policy": "random"}, "--engine is 'spark'"),
        ({"address": "auto", "policy": "random"}, "--engine is 'local', with an --address"),
        ({"data_format": "csv", "policy": "random"}, "no data format 'csv'"),
    ],
)
def test_options_that_do_not_go_together(
    options: dict[str, Any], message: str, full_world: Path, tmp_path: Path
) -> None:
    with pytest.raises(DyDiffError, match=message) as caught:
        export(full_world, out=tmp_path / "syn", **{"batch": 10, **options})
    assert caught.value.usage and not list(tmp_path.iterdir())


def test_damaged_or_missing_baselines_are_named(full_world: Path, tiny_world_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "world"
    shutil.copytree(full_world, path)
    (path / "synther.safetensors").write_bytes(b"not tensors")
    with pytest.raises(DyDiffError, match=r"synther model in .* cannot be read"):
        export(path, None, tmp_path / "syn", method="synther", batch=4)
    line = ["export", "--method", "mtdiff-s", "--world", str(tiny_world_path), "--out", str(tmp_path / "syn")]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 2 and "fit --dataset" in result.stderr and "--models mtdiff-s" in result.stderr


def test_baselines_know_the_presets_of_worlds() -> None:
    assert set(synther.PRESETS) == set(mtdiff.PRESETS) == set(PRESETS)


def test_synthers_observations_lie_where_observations_can_be(tiny_world: Any) -> None:
    size = tiny_world.spec.observation_size
    walls = replace(tiny_world.normalizer, low=torch.full((size,), -0.1), high=torch.full((size,), 0.1))
    sampler = TransitionSampler(replace(tiny_world, normalizer=walls), SynthER(tiny_world.spec, SynthERConfig(width=16, depth=1)))
    drawn = sampler.synthesize(50, RoundOptions(50, method="synther", horizon=1, iterations=0), (0, 1)).rollouts.observations
    assert np.abs(drawn).max() <= 0.1 + 1e-6 and drawn.std() > 0
