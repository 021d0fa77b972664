"""`inspect` says what is on disk."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import gymnasium as gym
import minari
import numpy as np
import torch
from typer.testing import CliRunner

from dydiff_env.cli.app import app
from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.minari_io import resolve_dataset, write_dataset


def report(path) -> dict:
    result = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_dataset_folder(hopper_folder, hopper_dataset):
    document = report(hopper_folder)
    assert (document["kind"], document["transitions"]) == ("dataset", 4000)
    assert document["return_quartiles"][0] <= document["return_mean"] <= document["return_quartiles"][-1]
    assert document["fingerprint"] == hopper_dataset.spec.fingerprint


def test_the_next_lines_name_what_can_be_found(hopper_folder):
    """An id that is not registered would lead nowhere."""
    shown = CliRunner().invoke(app, ["inspect", str(hopper_folder)]).stdout
    source = re.search(r"Next: dydiff-env fit --dataset (\S+) ", shown)[1]
    assert resolve_dataset(source) == resolve_dataset(hopper_folder)
    assert max(len(number) for number in re.search(r"return quartiles: (.*)", shown)[1].split(", ")) < 10


def test_a_world(tiny_world_path, hopper_dataset):
    document = report(tiny_world_path)
    assert document["kind"] == "world"
    assert document["spec"]["fingerprint"] == hopper_dataset.spec.fingerprint


def test_an_agent(tmp_path, hopper_dataset):
    path = tmp_path / "agent.pt"
    torch.save({"format": "dydiff-env-agent", "version": 1, "algorithm": "td3bc", "config": {"alpha": 2.5},
                "state": {"w": torch.zeros(3)}, "spec": hopper_dataset.spec.to_json(), "world": None,
                "updates": 7}, path)
    document = report(path)
    assert (document["format"], document["algorithm"], document["updates"]) == ("agent", "td3bc", 7)
    assert document["spec"]["dataset_id"] == "tests/hopper-v0"


def test_what_is_nothing_known(tmp_path):
    (tmp_path / "x.pt").write_text("hello")
    for path in (tmp_path / "x.pt", tmp_path / "missing", tmp_path):
        result = CliRunner().invoke(app, ["inspect", str(path)])
        assert result.exit_code == 1 and "Traceback" not in result.output and "fix:" in result.output


def test_a_damaged_environment_hides_nothing_else_and_a_damaged_world_is_named(tmp_path, hopper_dataset):
    write_dataset(tmp_path / "data", Dataset.from_episodes(replace(hopper_dataset.spec, env_spec="Hopper"), [hopper_dataset.episode(0)]))
    document = report(tmp_path / "data")
    assert (document["env"], document["episodes"], document["minari_version"]) == ("unreadable", 1, minari.__version__)
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "world.json").write_text("[1]")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "world")])
    assert result.exit_code == 1 and "cannot be read" in result.output and "Traceback" not in result.output


def test_bounds_without_end_are_null(tmp_path):
    def refuse(name: str) -> None:
        raise ValueError(name)

    space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    episode = Episode(np.zeros((3, 1), np.float32), np.zeros((2, 1), np.float32), np.zeros(2, np.float32), False)
    write_dataset(tmp_path / "free", Dataset.from_episodes(DatasetSpec(space, space, dataset_id="tests/free-v0"), [episode]))
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "free"), "--json"])
    assert json.loads(result.stdout, parse_constant=refuse)["action_bounds"] == [None, None]
