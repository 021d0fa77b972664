"""How long a job takes is said early, rightly, once, and without changing what the job makes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dydiff_env.agents import Replay, agent_class
from dydiff_env.agents.loop import update_seconds
from dydiff_env.policies import as_policy
from dydiff_env.progress import announce, duration, progress_bar
from dydiff_env.synthesis.estimate import dream_seconds
from dydiff_env.synthesis.methods import Dreamer
from dydiff_env.synthesis.rounds import RoundOptions
from dydiff_env.world.fit import fit_world
from dydiff_env.world.fitting import Fitting
from dydiff_env.world.presets import TINY
from dydiff_env.world.world import World


def few(config: Any) -> Any:
    return replace(config, steps=12, evaluate_every=6)


SHORT = replace(TINY, dynamics_training=few(TINY.dynamics_training), reward_training=few(TINY.reward_training),
                termination_training=few(TINY.termination_training), behavior_training=few(TINY.behavior_training),
                denoiser_training=few(TINY.denoiser_training),
                anchors=replace(TINY.anchors, windows=600))  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (42, "42 s"), (100, "2 min"), (5000, "83 min"), (9000, "2.5 h"), (4e5, "4.6 days")]
)
def test_durations_read_as_a_person_says_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_short_jobs_say_nothing_and_long_ones_when_they_end(capsys: Any) -> None:
    announce("brief", 3)
    announce("fit", 600)
    said = capsys.readouterr().err
    assert said.startswith("fit: about 10 min in all, until ") and "brief" not in said


def test_a_job_in_a_pipe_says_once_how_long_it_will_take(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress_bar("steps", 1000) as advance:
        advance(400)  # done by an earlier run: says nothing about the pace
        for _ in range(20):
            now += 1.0
            advance(2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "steps: about 5 min left" in said[0]  # 588 steps at 2 a second


def test_a_rehearsal_changes_nothing(hopper_dataset: Any, capsys: Any) -> None:
    quiet, told = (World.fit(hopper_dataset, preset=SHORT, seed=3, progress=show) for show in (False, True))
    for name, value in quiet.models.state_dict().items():
        assert torch.equal(value, told.models.state_dict()[name]), name


def test_the_estimates_are_right(hopper_dataset: Any, tiny_world: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Within a factor of 4 here, where another process may take the processor away; 2 is what they are for."""
    from dydiff_env.world import estimate

    found: list[float] = []
    monkeypatch.setattr(estimate, "announce_fit", lambda fit: found.extend((estimate.estimate(fit), time.monotonic())))
    fit_world(Fitting(hopper_dataset, TINY, 0, tmp_path, torch.device("cpu"), True))
    assert 0.25 < found[0] / (time.monotonic() - found[1]) < 4
    fit_world(Fitting(hopper_dataset, TINY, 0, tmp_path, torch.device("cpu"), True))
    assert found[2] < found[0] / 2  # the stages are there: only the look at held-out data is left

    policy = as_policy("random", tiny_world.spec)
    options = RoundOptions(trajectories=1024, horizon=60, batch=1280)
    dreamer = Dreamer(tiny_world, policy)
    expected, began = dream_seconds(dreamer, options, [1280]), time.monotonic()
    dreamer.synthesize(1280, options, (0, 0))
    assert 0.25 < expected / (time.monotonic() - began) < 4
    assert dream_seconds(dreamer, options, [100]) == 0.0

    agent, replay = agent_class("td3bc")(hopper_dataset.spec), Replay(hopper_dataset)
    pace, began = update_seconds(agent, replay), time.monotonic()
    agent.fit(replay, 200)
    assert 0.25 < 200 * pace / (time.monotonic() - began) < 4 and agent.updates == 200
