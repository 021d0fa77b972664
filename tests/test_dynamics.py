"""The single-step model: what its networks see, and which transitions they are shown."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.world.dynamics import Dynamics, DynamicsConfig
from dydiff_env.world.fit_single_step import FARTHEST, spread
from dydiff_env.world.fitting import Fitting
from dydiff_env.world.hard_examples import HardExamples
from dydiff_env.world.networks import waves
from dydiff_env.world.presets import TINY


def model(**changes: object) -> Dynamics:
    return Dynamics(3, 2, DynamicsConfig(members=4, elites=2, width=16, depth=2, **changes)).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("frequencies", [(), (0.5,), (0.25, 1.0, 4.0)])
def test_rollouts_use_the_networks_that_are_trained(frequencies):
    dynamics, states, actions = model(frequencies=frequencies), torch.randn(5, 3), torch.randn(5, 2)
    change, _ = dynamics(states.expand(4, 5, 3), actions.expand(4, 5, 2))
    elites = states + dynamics.delta_mean + dynamics.delta_std * change[dynamics.elites]
    prediction = dynamics.predict(states, actions)
    torch.testing.assert_close(prediction.mean, elites.mean(0))
    torch.testing.assert_close(prediction.first, elites[0])
    torch.testing.assert_close(dynamics.each(states.expand(2, 5, 3), actions.expand(2, 5, 2)), elites)


@pytest.mark.parametrize("frequencies", [(0.25, 0.5, 1.0, 2.0, 4.0), (3.0,), (0.5, 0.75, 1.5), (0.0,), ()])
def test_waves_are_sines_and_cosines(frequencies):
    x = torch.linspace(-30, 30, 1001)
    wanted = [wave for f in frequencies for wave in (torch.sin(np.pi * f * x), torch.cos(np.pi * f * x))]
    for one, other in zip(waves(x, frequencies), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=0)


def test_waves_tell_apart_what_lies_on_either_side_of_a_wall():
    def wall(x: torch.Tensor) -> torch.Tensor:  # turns back at every half
        return torch.where((x % 1.0) < 0.5, 0.5, -0.5)

    def loss_after_training(frequencies: tuple[float, ...]) -> float:
        torch.manual_seed(0)
        dynamics = Dynamics(1, 1, DynamicsConfig(members=1, elites=1, width=32, depth=2, beta=1.0, frequencies=frequencies))
        optimizer = torch.optim.Adam(dynamics.parameters(), 3e-3)
        states, actions = 4 * torch.rand(1, 512, 1) - 2, torch.zeros(1, 512, 1)
        for _ in range(300):
            optimizer.zero_grad()
            dynamics.loss(states, actions[:, :, None], (states + wall(states))[:, :, None]).backward()
            optimizer.step()
        following = (states + wall(states))[0][:, None]
        return float(dynamics.errors(states[0], actions[0][:, None], following, torch.ones(len(following), 1)))

    assert loss_after_training((1.0, 2.0)) < 0.3 * loss_after_training(())


@given(rows=st.integers(1, 23), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_each_transition_is_looked_at_by_one_member(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    dynamics = model(frequencies=(1.0,))
    states, actions, following = (torch.randn(rows, size, generator=generator) for size in (3, 2, 3))
    change, _ = dynamics(states.expand(4, rows, 3), actions.expand(4, rows, 2))
    wrong = (change - (following - states - dynamics.delta_mean) / dynamics.delta_std).square().mean(-1).sqrt()
    by_member = wrong[torch.arange(rows) % 4, torch.arange(rows)]
    torch.testing.assert_close(dynamics.distances(states, actions, following), by_member.detach())


def test_steps_count_as_their_weights_say():
    dynamics, generator = model(), torch.Generator().manual_seed(0)
    starts = torch.randn(4, 6, 3, generator=generator)
    actions, following = (torch.randn(4, 6, 5, size, generator=generator) for size in (2, 3))
    half = dynamics.loss(starts[:, :3], actions[:, :3], following[:, :3])
    weights = torch.tensor([2.0, 2.0, 2.0, 0.0, 0.0, 0.0])[:, None].expand(4, 6, 5)
    torch.testing.assert_close(dynamics.loss(starts, actions, following, weights), half)
    bounds = 0.01 * (dynamics.log_variance_max.sum() - dynamics.log_variance_min.sum())
    ended = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]).expand(4, 6, 5)  # after two steps
    short = dynamics.loss(starts, actions[:, :, :2], following[:, :, :2])
    torch.testing.assert_close((dynamics.loss(starts, actions, following, ended) - bounds) * 5 / 2, short - bounds)


@pytest.mark.parametrize("memory", [False, True])
def test_a_rollout_goes_on_from_what_the_member_said(memory):
    """Told as truth what it will say itself, the model errs by nothing, at any step."""
    dynamics, generator = model(memory=memory), torch.Generator().manual_seed(0)
    start, actions = torch.randn(7, 3, generator=generator), torch.randn(7, 6, 2, generator=generator)
    now, said, action, recalled = start.expand(4, 7, 3), [], actions.expand(4, 7, 6, 2), None
    for t in range(6):
        after = now + dynamics.delta_mean + dynamics.delta_std * dynamics(now, action[:, :, t], recalled)[0]
        recalled, now = dynamics.recall(now, action[:, :, t], after), after
        said.append(now)
    for member in range(4):
        errors = dynamics.errors(start, actions, torch.stack(said, 2)[member], torch.ones(7, 6))
        assert errors[member] == pytest.approx(0, abs=1e-10) and (errors > 1e-6).sum() == 3


def drawn(share: float, errors: torch.Tensor, draws: int = 40_000) -> tuple[np.ndarray, torch.Tensor]:
    examples = HardExamples(np.arange(10), lambda rows: errors[rows], share, every=3)
    return examples(torch.Generator().manual_seed(0), draws)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_hard_transitions_are_drawn_more_often_and_count_less(share):
    errors = torch.arange(10.0) + 1
    rows, weights = drawn(share, errors)
    often = np.bincount(rows, minlength=10) / len(rows)
    np.testing.assert_allclose(often, (1 - share) / 10 + share * errors / errors.sum(), atol=0.01)
    everything = torch.arange(10.0)  # a mean over the draws is the mean over all
    assert float((weights * everything[rows]).mean()) == pytest.approx(4.5, abs=0.05)


def test_what_the_model_is_right_about_everywhere_is_drawn_all_the_same():
    rows, weights = drawn(1.0, torch.zeros(10), 200)
    assert set(rows.tolist()) == set(range(10)) and torch.allclose(weights, torch.ones(200))


def test_draws_go_on_after_a_stop_as_if_there_had_been_none(monkeypatch):
    monkeypatch.setattr("dydiff_env.world.hard_examples.POOL", 6)
    looks = []

    def errors(rows: np.ndarray) -> torch.Tensor:
        looks.append(rows)
        return torch.ones(len(rows))

    def examples() -> HardExamples:
        return HardExamples(np.arange(100), errors, 0.5, every=3)

    generator, whole = torch.Generator().manual_seed(0), examples()
    first = [whole(generator, 4)[0] for _ in range(3)]
    kept = generator.get_state()
    second = [whole(generator, 4)[0] for _ in range(3)]
    resumed, generator = examples(), torch.Generator()
    generator.set_state(kept)
    np.testing.assert_array_equal(second, [resumed(generator, 4)[0] for _ in range(3)])
    assert len(looks) == 3 and not np.array_equal(first, second)
    assert set(np.ravel(first)) <= set(looks[0])  # of a large log, only what was looked at is drawn


def test_a_number_that_hardly_ever_changes_does_not_outweigh_all_others(tmp_path: Path) -> None:
    """A gear that is shifted once in ten thousand steps, and one that never is."""
    rng, steps = np.random.default_rng(0), 500
    episodes = []
    for shifted in [*[0] * 19, 1]:
        rows = rng.standard_normal((steps + 1, 3)).astype(np.float32)
        rows[:, 1], rows[:, 2] = 7, 0
        rows[250:, 2] = 5 * shifted
        episodes.append(Episode(rows, rng.uniform(-1, 1, (steps, 1)).astype(np.float32), rows[1:, 0], False))
    spec = DatasetSpec(gym.spaces.Box(-np.inf, np.inf, (3,)), gym.spaces.Box(-1, 1, (1,)))
    fitting = Fitting(Dataset.from_episodes(spec, episodes), TINY, 0, tmp_path, torch.device("cpu"))
    step = fitting.batches.steps(fitting.split.train)
    changes = step.next_states - step.states
    mean, scale = spread(fitting, lambda step: step.next_states - step.states)
    torch.testing.assert_close(mean, changes.mean(0), rtol=1e-3, atol=1e-5)
    assert scale[0] == pytest.approx(float(changes[:, 0].std()), rel=1e-3)
    assert ((changes - mean) / scale).abs().max() <= FARTHEST * 1.001 and (scale > 0).all()
    _, far = spread(fitting, lambda step: step.rewards + 1000)  # wherever zero lies
    assert far == pytest.approx(float(step.rewards.std()), rel=1e-3)
