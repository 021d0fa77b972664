"""What a user relies on in a world: units, seeds, ends, prefixes, files."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count, islice, product

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.errors import DyDiffError
from dydiff_env.lock import sole_writer
from dydiff_env.policies import as_policy, load_policy
from dydiff_env.policies.draws import stream
from dydiff_env.world import dream as dreams
from dydiff_env.world.batches import split
from dydiff_env.world.denoiser import Condition
from dydiff_env.world.dynamics import Dynamics, DynamicsConfig
from dydiff_env.world.error_scale import ErrorScale
from dydiff_env.world.heldout import SHARED, choose_refinement
from dydiff_env.world.identity import world_fingerprint
from dydiff_env.world.nudge import nudger
from dydiff_env.world.presets import FAST, PAPER, PRESETS, QUICK, TINY, Preset
from dydiff_env.world.refine import in_place, refine, refinements
from dydiff_env.world.rollout import Rollout, apart, rollout
from dydiff_env.world.termination import TerminationConfig, TerminationModel
from dydiff_env.world.training import _keep_best
from dydiff_env.world.transformer import CausalTransformer, TransformerConfig
from dydiff_env.world.trust import ASTRAY, Trust, borne_out, elsewhere, shares
from dydiff_env.world.unet import TemporalUNet, UNetConfig
from dydiff_env.world.world import World


class Push:
    """A policy with feedback, deterministic or not."""

    def act(self, observations, deterministic=True):
        mean = torch.tanh(observations[:, :3])
        return mean if deterministic else mean + 0.1 * torch.randn_like(mean)


def test_dream_obeys_its_contract(tiny_world):
    starts = tiny_world.sample_starts(8, seed=1)
    dream = tiny_world.dream(Push(), starts)
    assert dream.observations.shape == (8, tiny_world.horizon + 1, 11) and dream.observations.dtype == np.float32
    assert np.allclose(dream.observations[:, 0], starts, atol=1e-4)
    assert np.isfinite(dream.rewards).all() and (dream.uncertainties >= 0).all()
    assert ((dream.lengths >= 1) & (dream.lengths <= tiny_world.horizon)).all()
    assert dream.terminations[dream.lengths < tiny_world.horizon].all()
    acted = Push().act(torch.from_numpy(dream.observations[:, :-1].reshape(-1, 11))).reshape(dream.actions.shape).numpy()
    assert np.abs(acted - dream.actions)[dream.mask].max() < 1e-4  # Eq. 8: the policy's own actions


def test_a_large_batch_is_its_rows(tiny_world):
    """Large batches pass through the networks in blocks; no row is lost or moved by it."""
    starts = tiny_world.sample_starts(8300 // tiny_world.horizon, seed=1)
    dream = tiny_world.dream(Push(), starts, iterations=1)
    acted = Push().act(torch.from_numpy(dream.observations[:, :-1].reshape(-1, 11))).reshape(dream.actions.shape).numpy()
    assert np.abs(acted - dream.actions)[dream.mask].max() < 1e-4
    whole, part = (tiny_world.dream(Push(), rows, iterations=0) for rows in (starts, starts[-20:]))
    assert np.allclose(whole.observations[-20:], part.observations, atol=1e-3)
    assert np.allclose(whole.rewards[-20:], part.rewards, atol=1e-3)


def test_seeds_reproduce_and_stochastic_policies_differ(tiny_world):
    starts = tiny_world.sample_starts(4, seed=1)
    first, again, other = (tiny_world.dream(Push(), starts, deterministic=False, seed=s) for s in (3, 3, 4))
    assert np.array_equal(first.observations, again.observations)
    assert not np.array_equal(first.actions, other.actions)


def test_each_seed_and_step_and_use_draws_its_own(tiny_world, monkeypatch):
    paths = product(range(5), range(3), range(100))
    assert len({stream(*path) & 0xFFFFFFFF for path in paths}) == 1500  # torch on the CPU looks at the last 32 bits

    class Draws:
        def act(self, observations, deterministic=True):
            seen.append(torch.rand(len(observations)))
            return torch.zeros(len(observations), 3)

    seen, drawn = [], dreams._drawn
    monkeypatch.setattr(dreams, "_drawn", lambda *which: seen.append(drawn(*which)) or seen[-1])
    starts, horizon = tiny_world.sample_starts(4), tiny_world.horizon + 3
    for seed in range(3):
        tiny_world.dream(Draws(), starts, horizon, iterations=0, deterministic=False, seed=seed)
    assert len(seen) > 3 * tiny_world.horizon and len({float(draw[0]) for draw in seen}) == len(seen)


@pytest.mark.parametrize("horizon", [1, 3, 4, 10, 31])
def test_a_prefix_can_be_dreamt_alone(tiny_world, horizon):
    starts, trust = tiny_world.sample_starts(4, seed=2), Trust(1.0, 1.0)
    whole, part = (tiny_world.dream(Push(), starts, length, 2, trust=trust) for length in (None, horizon))
    known = part.state_mask & whole.state_mask[:, : horizon + 1]
    assert part.horizon == horizon and known[:, 1].all()
    np.testing.assert_allclose(part.observations[known], whole.observations[:, : horizon + 1][known], atol=1e-4)


def test_a_dream_that_outlives_its_anchor_stays_uncertain(tiny_world, monkeypatch):
    def cut_short(*given):
        rolled = rollout(*given)
        steps = torch.arange(rolled.alive.shape[1])
        return rolled._replace(alive=(steps < 3).float().expand_as(rolled.alive),
                               disagreement=rolled.disagreement * (steps <= 3))

    starts, trust = tiny_world.sample_starts(4, seed=1), Trust(0.0)
    whole = tiny_world.dream(Push(), starts, iterations=1, trust=trust)
    monkeypatch.setattr(dreams, "rollout", cut_short)
    short = tiny_world.dream(Push(), starts, iterations=1, trust=trust)
    assert np.array_equal(short.uncertainties[:, :4], whole.uncertainties[:, :4]) and (whole.uncertainties > 0).all()
    assert (short.uncertainties[:, 4:] == short.uncertainties[:, 3:4]).all()


def test_long_horizons_chain_windows(tiny_world):
    dream = tiny_world.dream(Push(), tiny_world.sample_starts(4), horizon=2 * tiny_world.horizon + 5)
    assert dream.horizon == 2 * tiny_world.horizon + 5


def test_first_actions_are_kept(tiny_world):
    starts, first = tiny_world.sample_starts(4), np.full((4, 3), 0.25, np.float32)
    assert np.allclose(tiny_world.dream(Push(), starts, first_actions=first).actions[:, 0], 0.25)
    alone = tiny_world.dream(None, starts, horizon=1, first_actions=first)
    assert alone.observations.shape == (4, 2, 11)


def test_wrong_widths_are_named(tiny_world):
    with pytest.raises(DyDiffError, match="11 numbers wide"):
        tiny_world.dream(Push(), np.zeros((2, 5), np.float32))
    with pytest.raises(DyDiffError, match="needs the action"):
        tiny_world.dream(None, tiny_world.sample_starts(2))


def test_saved_world_dreams_the_same(tiny_world, tiny_world_path, tmp_path):
    loaded = World.load(tiny_world_path)
    starts = tiny_world.sample_starts(4)
    assert np.array_equal(loaded.dream(Push(), starts).observations, tiny_world.dream(Push(), starts).observations)
    with pytest.raises(DyDiffError, match="exists"):
        loaded.save(tiny_world_path)
    assert "fidelity" in loaded.record and loaded.spec.dataset_id == tiny_world.spec.dataset_id


@pytest.mark.skipif(torch.__version__.startswith("2.6"), reason="this torch imports sympy for zeros on a device without memory")
def test_loading_a_world_leaves_the_compiler_alone():
    """PyTorch's compiler costs a second and 100 MB in every process that exports."""
    code = (
        "import sys; from dydiff_env import World, embedded; World.load(embedded.WORLD);"
        "assert not {'sympy', 'torch._dynamo'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_damaged_worlds_are_refused(tiny_world, tmp_path):
    path = tmp_path / "world"
    tiny_world.save(path)
    whole = (path / "world.safetensors").read_bytes()
    for damage in (whole[: len(whole) // 2], whole[:4], b""):
        (path / "world.safetensors").write_bytes(damage)
        with pytest.raises(DyDiffError):
            World.load(path)
    (path / "world.safetensors").write_bytes(whole)
    document = json.loads((path / "world.json").read_text())
    (path / "world.json").write_text(json.dumps({**document, "schema": 99}))
    with pytest.raises(DyDiffError, match="Update"):
        World.load(path)


PARTS = ("models.reward.units.scale", "models.termination.sharpness", "normalizer.low", "error_scale.slope", "before_bank", "initial_bank")


@pytest.mark.parametrize("lacking", [*PARTS, "record", "dataset", "longest"])
def test_a_world_that_lacks_something_is_to_be_fitted_again(lacking, tiny_world, tmp_path):
    path = tmp_path / "world"
    tiny_world.save(path)
    if lacking in PARTS:
        tensors = load_file(path / "world.safetensors")
        del tensors[lacking]
        save_file(tensors, path / "world.safetensors")
    else:
        document = json.loads((path / "world.json").read_text())
        holder = {"record": document, "dataset": document["record"], "longest": document["record"]["dataset"]}[lacking]
        del holder[lacking]
        (path / "world.json").write_text(json.dumps(document))
    with pytest.raises(DyDiffError, match=f"{lacking.removeprefix('models.')}.*fit the world again"):
        World.load(path)


def test_presets_survive_json():
    for preset in PRESETS.values():
        assert Preset.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset


def test_network_sizes():
    with torch.device("meta"):
        unet = TemporalUNet(11, 3, PAPER.network)
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(58.75e6, rel=1e-3)
    fast = CausalTransformer(11, 3, 100, FAST.network)
    assert sum(p.numel() for p in fast.parameters()) <= 2_000_000


@pytest.mark.parametrize("multipliers", [(1, 4, 8), (2, 1)])
def test_unet_keeps_any_length_and_reads_its_conditions(multipliers):
    unet = TemporalUNet(3, 2, UNetConfig(width=16, multipliers=multipliers)).eval()
    ones = torch.ones(2, 1, 1)
    for length in (5, 8, 100):
        x, condition = torch.randn(2, length, 3), Condition(torch.randn(2, 3), torch.randn(2, length, 2), torch.ones(2, length))
        out = unet(x, ones, torch.zeros(2), condition)
        assert out.shape == x.shape
        assert not torch.allclose(out, unet(x, ones, torch.zeros(2), condition._replace(starts=condition.starts + 1)))


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(1, 11), seed=st.integers(0, 1000))
def test_transformer_is_causal(cut, seed):
    torch.manual_seed(seed)
    network = CausalTransformer(3, 2, 12, TransformerConfig(width=16, blocks=2, heads=2, anchored=False))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, actions = torch.randn(2, 12, 3), torch.randn(2, 12, 2)
    condition = Condition(torch.randn(2, 3), actions, torch.ones(2, 12))
    changed = condition._replace(actions=torch.where(torch.arange(12)[:, None] < cut, actions, actions + 1))
    before = -(-cut // 4) * 4 - 4  # whole patches before the change
    out, moved = (network(x, torch.ones(2, 1, 1), torch.zeros(2), c) for c in (condition, changed))
    assert torch.allclose(out[:, :before], moved[:, :before], atol=1e-5)


def test_refinement_forms():
    rolled = Rollout(torch.zeros(2, 4, 1), torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), torch.ones(2, 3))
    ones = lambda r, a: (torch.ones(2, 3, 1), torch.ones(2, 3))  # noqa: E731
    settle = in_place(rolled.states[:, 0], lambda s: 2 * s)
    states, actions, _ = refine(rolled, ones, settle, 1)
    assert states[:, 1:].eq(1).all() and states[:, 0].eq(0).all() and torch.equal(actions, 2 * states[:, :-1])
    states, _, _ = refine(rolled, ones, settle, 2, "average")
    assert states[:, 1:].eq(0.75).all()
    assert refine(rolled, ones, settle, 0)[0] is rolled.states
    states, actions, _ = refine(rolled, ones, settle, 3, believe=lambda drawn: 0.25 * drawn)
    assert states[:, 1:].eq(0.25).all() and torch.equal(actions, 2 * states[:, :-1])


def test_damped_refinement_comes_to_rest_whatever_the_denoiser_answers():
    rolled = Rollout(torch.zeros(1, 2, 1), torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1))
    asked = count()
    flips = lambda r, a: (torch.full((1, 1, 1), (-1.0) ** next(asked)), torch.ones(1, 1))  # noqa: E731
    rounds = refinements(rolled, flips, in_place(rolled.states[:, 0], lambda s: s), "damped")
    at = [float(states[0, 1, 0]) for states, _, _ in islice(rounds, 60)]
    assert at[:3] == [0.0, 1.0, 0.5]
    assert max(at[40:]) - min(at[40:]) < 0.02


@settings(max_examples=10, deadline=None)
@given(gain=st.floats(0.05, 1.0), seed=st.integers(0, 1000), memory=st.booleans())
def test_a_nudged_rollout_is_the_policys_and_stays_the_anchor_where_nothing_is_to_be_corrected(gain, seed, memory):
    torch.manual_seed(seed)
    dynamics, ends = Dynamics(3, 1, DynamicsConfig(3, 2, 16, 2, memory=memory)), TerminationModel(3, TerminationConfig())
    dynamics.cache_elites()
    act, starts = lambda t, s: torch.tanh(s[:, :1]), torch.randn(5, 3)
    recalled = dynamics.recall(torch.randn(5, 3), torch.randn(5, 1), starts)
    rolled = rollout(dynamics, ends, act, starts, 7, recalled)
    nudged = nudger(dynamics, rolled, act, gain)
    states, actions = nudged(rolled.states[:, 1:])
    assert torch.allclose(states, rolled.states, atol=1e-4)
    wanted = rolled.states[:, 1:] + torch.randn(5, 7, 3)
    states, actions = nudged(wanted)
    assert torch.equal(actions, torch.stack([act(t, states[:, t]) for t in range(7)], 1))
    recalled = torch.cat([recalled[:, None], dynamics.recall(states[:, :-2], actions[:, :-1], states[:, 1:-1])], 1)
    first = dynamics.only(dynamics.elites[:1].tolist())
    model = torch.stack([first.predict(states[:, t], actions[:, t], recalled[:, t]).mean for t in range(7)], 1)
    model = model + rolled.states[:, 1:] - rolled.first
    assert torch.allclose(states[:, 1:], (1 - gain) * model + gain * wanted, atol=1e-4)


@pytest.mark.parametrize("memory", [False, True])
def test_members_go_their_own_ways(memory):
    torch.manual_seed(0)
    dynamics, ends = Dynamics(3, 1, DynamicsConfig(3, 2, 16, 2, memory=memory)), TerminationModel(3, TerminationConfig())
    dynamics.cache_elites()
    act, starts = lambda t, s: torch.tanh(s[..., :1]), torch.randn(5, 3)
    recalled = dynamics.recall(torch.randn(5, 3), torch.randn(5, 1), starts)
    steps = list(apart(dynamics.only(range(3)), ends, act, starts, 7, recalled))
    assert len(steps) == 7 and all(alive.eq(1).all() and alive.shape == (3, 5) for _, alive in steps)
    for m in range(3):
        alone = rollout(dynamics.only([m]), ends, act, starts, 7, recalled)
        assert torch.allclose(torch.stack([states[m] for states, _ in steps], 1), alone.states[:, 1:], atol=1e-5)


@pytest.mark.parametrize("reality, trust", [(1.0, None), (9.0, SHARED)])
def test_the_fewest_refinements_that_serve_are_chosen_and_members_asked_if_they_can_know(reality, trust):
    table = {"M0": {"mean": 1.0}, "M1": {"mean": 0.52}} | {f"M{m}": {"mean": 0.5} for m in range(2, 6)}
    found = {"closed_loop": table, "apart": {"reality": reality, "members": 1.0}}
    chosen, record = choose_refinement(FAST.refinement, found)
    assert (chosen.iterations, chosen.trust) == (1, trust) and record["reason"]


def test_corrections_are_believed_as_far_as_members_bear_them_out():
    torch.manual_seed(0)
    length, alive = 6, torch.ones(32, 6)
    anchor = Rollout(torch.zeros(32, length + 1, 3), torch.zeros(32, length, 1), torch.zeros(32, length, 3), alive)
    correction, others = torch.randn(2, 32, length, 3)
    # the members go the correction's way by half in the first dimension, against it in the second, anywhere in the third;
    # and where the others go all of the way in the first, not at all in the second
    found = []
    for _ in range(5):
        noise = torch.tensor([0.1, 0.1, 1.0]) * torch.randn(32, length, 3)
        states = torch.tensor([0.5, -1.0, 0.0]) * correction + torch.tensor([1.0, 0.0, 0.0]) * others + noise
        truth, denoiser = (torch.cat([x, alive[..., None]], -1) for x in (states, correction))
        found.append(shares(anchor, truth, denoiser, others))
    trust = borne_out(found)
    assert abs(trust.denoiser[0] - 0.5) < 0.03 and abs(trust.members[0] - 1) < 0.05
    assert trust.denoiser[1] == 0 and trust.denoiser[2] < 0.1 and trust.members[1] < 0.05 and trust.members[2] < 0.1
    assert trust.denoiser[3] == 0 and trust.asks_members
    nobody = borne_out([])
    assert nobody == Trust(0.0) and not nobody.asks_members


def test_a_member_that_has_ended_counts_as_not_apart():
    anchor = Rollout(torch.zeros(1, 3, 1), torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), torch.ones(1, 2))
    states = torch.tensor([1.0, 3.0])[:, None, None]
    steps = [(states, torch.tensor([[1.0], [1.0]])), (states, torch.tensor([[1.0], [0.0]]))]
    assert elsewhere(anchor, steps).flatten().tolist() == [2.0, 0.5]


def test_a_member_that_goes_astray_is_held_back():
    anchor = Rollout(torch.zeros(1, 2, 2), torch.zeros(1, 1, 1), torch.zeros(1, 1, 2), torch.ones(1, 1))
    near = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    states = torch.tensor([*near, [300.0, 400.0], [9.0, 9.0]])[:, None]
    alive = torch.tensor([[1.0]] * 5 + [[0.0]])  # what has ended does not tell how far is far
    found = elsewhere(anchor, [(states, alive)]).flatten()
    torch.testing.assert_close(found, torch.tensor([0.6, 0.8]) * ASTRAY / 6)  # it counts as if it had gone four times as far as they
    none = elsewhere(anchor, [(states, torch.zeros(6, 1))])
    assert (none == 0).all() and (elsewhere(anchor, [(torch.zeros(3, 1, 2), torch.ones(3, 1))]) == 0).all()


def test_a_world_asks_its_members_about_each_policy(tiny_world):
    asking = dataclasses.replace(tiny_world.preset.refinement, trust=None)
    tiny_world = dataclasses.replace(tiny_world, preset=dataclasses.replace(tiny_world.preset, refinement=asking))
    trust, size = tiny_world.trust_in(Push()), tiny_world.spec.observation_size
    assert trust.denoiser.shape == (size + 1,) and trust.members.shape == (size,)
    assert all(((share >= 0) & (share <= 1)).all() for share in trust)
    assert all(torch.equal(*pair) for pair in zip(trust, tiny_world.trust_in(Push()), strict=True))
    starts = tiny_world.sample_starts(4)
    given = tiny_world.dream(Push(), starts, iterations=1, trust=trust)
    assert np.array_equal(given.observations, tiny_world.dream(Push(), starts, iterations=1).observations)
    none = tiny_world.dream(Push(), starts, iterations=1, trust=0.0)
    assert np.allclose(none.observations, tiny_world.dream(Push(), starts, iterations=0).observations, atol=1e-4)
    moved = tiny_world.dream(Push(), starts, iterations=1, trust=Trust(0.0, 1.0))
    assert not np.allclose(moved.observations, none.observations, atol=1e-3)


def test_a_denoiser_that_is_not_believed_is_not_asked(tiny_world, monkeypatch):
    starts, trust = tiny_world.sample_starts(4), Trust(0.0, 1.0)
    whole = tiny_world.dream(Push(), starts, iterations=1, trust=trust._replace(denoiser=1e-12))
    monkeypatch.setattr(World, "sample_states", lambda *_: pytest.fail("it was asked"))
    spared = tiny_world.dream(Push(), starts, iterations=1, trust=trust)
    assert np.allclose(spared.observations, whole.observations, atol=1e-4) and np.array_equal(spared.lengths, whole.lengths)


def test_the_members_correction_fades_before_a_further_window(tiny_world):
    starts, trust, length = tiny_world.sample_starts(4), Trust(0.0, 1.0), tiny_world.horizon
    plain = tiny_world.dream(Push(), starts, 2 * length, 0).observations
    alone = tiny_world.dream(Push(), starts, length, 1, trust=trust).observations
    onward = tiny_world.dream(Push(), starts, length, 1, trust=trust, goes_on=np.full(len(starts), length)).observations
    long = tiny_world.dream(Push(), starts, 2 * length, 1, trust=trust).observations
    prefix = tiny_world.dream(Push(), starts, 4, 1, trust=trust, goes_on=np.full(len(starts), length)).observations
    assert np.array_equal(onward, long[:, : length + 1])
    assert np.allclose(prefix, onward[:, :5], atol=1e-4)
    off = [np.abs(x[:, length] - plain[:, length]).max() for x in (alone, onward)]
    assert off[1] < off[0]


def test_error_scale_is_calibrated():
    torch.manual_seed(0)
    disagreement = 0.1 * torch.rand(4000, 1) * torch.ones(4000, 5)
    steps = torch.arange(1.0, 6).sqrt()[None, :, None]
    error = torch.randn(4000, 5, 2) * disagreement[..., None] * steps * 3
    scale = ErrorScale.fit(error, disagreement, torch.ones(4000, 5))
    z = (error / scale(disagreement)).square().mean((0, 2))
    assert ((z > 0.7) & (z < 1.3)).all()


SCRIPT = """
import dataclasses, sys, torch
torch.set_num_threads(1)
import dydiff_env.world.training as training
from dydiff_env.world.presets import AnchorConfig
from dydiff_env.world.presets import TINY
from dydiff_env.world.world import World
training.train.__kwdefaults__["checkpoint_seconds"] = 0.0
stages = {name: dataclasses.replace(value, steps=steps, evaluate_every=10)
          for name, steps in (("reward", 30), ("termination", 30), ("dynamics", 60), ("behavior", 30), ("denoiser", 40))
          for name, value in [(name + "_training", getattr(TINY, name + "_training"))]}
dynamics, reward = dataclasses.replace(TINY.dynamics, memory=None, frequencies=None), dataclasses.replace(TINY.reward, next_state=None)
ends = dataclasses.replace(TINY.termination, drawn=True)
parts = {"dynamics": dynamics, "reward": reward, "termination": ends, "anchors": AnchorConfig(windows=300)}
World.fit(sys.argv[1], preset=dataclasses.replace(TINY, **parts, **stages), out=sys.argv[2])
"""


def test_a_killed_fit_resumes_to_the_same_world(hopper_folder, tmp_path):
    def start(out):
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(hopper_folder), str(out)])

    assert start(tmp_path / "whole").wait() == 0
    stages = ("reward_next.pt", "termination.pt", "sight.json", "dynamics.pt", "ends.pt", "denoiser.pt")  # killed once in each or after it
    for stage in stages:
        process = start(tmp_path / "killed")
        while process.poll() is None and not (tmp_path / "killed.partial" / stage).exists():
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "killed").wait() == 0
    whole, killed = (World.load(tmp_path / name) for name in ("whole", "killed"))
    for name, value in whole.models.state_dict().items():
        assert torch.equal(value, killed.models.state_dict()[name]), name
    assert whole.record["fidelity"] == killed.record["fidelity"]


def test_a_partial_fit_of_other_settings_is_not_continued(hopper_dataset, tmp_path):
    (tmp_path / "w.partial").mkdir()
    (tmp_path / "w.partial" / "claim.json").write_text("{}")
    with pytest.raises(DyDiffError, match="unfinished fit"):
        World.fit(hopper_dataset, preset="tiny", out=tmp_path / "w")
    with pytest.raises(DyDiffError, match="no preset"):
        World.fit(hopper_dataset, preset="huge")


def test_paper_form_fits_and_dreams(hopper_dataset):
    small = dataclasses.replace(
        PRESETS["tiny"], name="paper-small", behavior=None, anchors=None, network=PAPER.network.__class__(width=8),
        denoiser=PAPER.denoiser, sampler=dataclasses.replace(PAPER.sampler, steps=3),
        denoiser_training=dataclasses.replace(PAPER.denoiser_training, steps=20), refinement=PAPER.refinement)
    world = World.fit(hopper_dataset, preset=small)
    assert world.iterations == 2 and not world.anchored
    starts = world.sample_starts(4)
    dream = world.dream(Push(), starts)
    assert np.isfinite(dream.observations).all()
    # A U-Net sees a window whole, as it did in training: a shorter dream is the beginning of one, not one of its own.
    short = world.dream(Push(), starts, 5)
    np.testing.assert_array_equal(short.actions, dream.actions[:, :5])
    np.testing.assert_array_equal(short.observations, dream.observations[:, :6])


def test_a_few_long_episodes_that_all_end_teach_when(hopper_dataset):
    long = np.flatnonzero(hopper_dataset.terminations)[:12]
    few = Dataset.from_episodes(hopper_dataset.spec, [hopper_dataset.episode(int(i)) for i in long])
    world = World.fit(few, preset=TINY, seed=0)
    assert world.record["training"]["termination"]["steps"] and torch.isfinite(world.models.termination.threshold)


def test_the_threshold_counts_ordinary_states_for_as_many_as_they_stand_for():
    model = TerminationModel(1, TerminationConfig(width=4, depth=1))
    model.forward = lambda states: states[..., 0]
    scores = torch.tensor([[4.0], [3.0], [2.0], [1.0]])
    terminal = torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert model.calibrate(scores, terminal)["recall"] == 1.0 and float(model.threshold) == 1.5
    found = model.calibrate(scores, terminal, weight=100.0)  # the false one stands for a hundred
    assert found["precision"] == 1.0 and found["recall"] == 0.5 and float(model.threshold) == 3.5


def test_where_all_states_are_terminal_all_are_called_so():
    model = TerminationModel(1, TerminationConfig(width=4, depth=1))
    model.forward = lambda states: states[..., 0]
    same = torch.zeros(50, 1)
    assert model.calibrate(same, torch.ones(50))["f1"] == 1.0
    assert model.terminal(same).all() and torch.isfinite(model.threshold)


@pytest.mark.parametrize("preset", [FAST, QUICK], ids=lambda preset: preset.name)
def test_the_presets_people_use_fit_and_dream(preset, hopper_dataset):
    """A few steps of each stage, at their real sizes, with all that a fit tries."""
    few = {name: replace(part, steps=4, evaluate_every=2) for name, part in vars(preset).items() if name.endswith("_training")}
    world = World.fit(hopper_dataset, preset=replace(preset, **few, anchors=replace(preset.anchors, windows=64)))
    dream = world.dream(load_policy("random", world.spec), world.sample_starts(4), 12, 1)
    assert np.isfinite(dream.observations[dream.state_mask]).all() and world.preset.dynamics.frequencies is not None


@given(st.lists(st.integers(1, 90), min_size=3, max_size=30).filter(lambda lengths: max(lengths) > 1), st.integers(1, 40))
def test_no_window_that_is_learned_from_holds_a_transition_held_out(lengths: list[int], horizon: int):
    spec = DatasetSpec(gym.spaces.Box(-1, 1, (1,)), gym.spaces.Box(-1, 1, (1,)))
    episodes = [Episode(np.zeros((n + 1, 1), np.float32), np.zeros((n, 1), np.float32), np.zeros(n, np.float32), False) for n in lengths]
    found = split(Dataset.from_episodes(spec, episodes), horizon)
    ends = np.repeat(np.cumsum(lengths), lengths)
    seen = {step for begin in found.train for step in range(begin, min(begin + horizon, ends[begin]))}
    assert len(found.train) and len(found.held_out) and not seen & set(found.held_out.tolist())


@pytest.mark.parametrize(("count", "length", "ends_seen"), [(10, 300, True), (3, 2000, False), (2, 300, False)])
def test_as_little_as_possible_is_held_out_of_a_few_episodes(count: int, length: int, ends_seen: bool):
    spec = DatasetSpec(gym.spaces.Box(-1, 1, (1,)), gym.spaces.Box(-1, 1, (1,)))
    parts = np.zeros((length + 1, 1), np.float32), np.zeros((length, 1), np.float32), np.zeros(length, np.float32)
    found = split(Dataset.from_episodes(spec, [Episode(*parts, True)] * count), 100)
    assert (found.train % length == length - 1).any() == ends_seen
    assert len(found.train) / (count * length) >= min(1 - 1 / count, 0.95 - 100 / length) - 0.01


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"anchors": None}, "go together"),
        ({"behavior": None}, "go together"),
        ({"network": UNetConfig()}, "go together"),
        ({"network": UNetConfig(kernel=4)}, "odd kernel"),
        ({"network": UNetConfig(width=20)}, "multiple of 8"),
        ({"network": UNetConfig(multipliers=())}, "one multiplier at least"),
        ({"network": UNetConfig(multipliers=(1, 0))}, "multipliers is 0"),
        ({"dynamics": replace(TINY.dynamics, elites=9)}, "more elites than members"),
        ({"dynamics_training": replace(TINY.dynamics_training, evaluate_every=0)}, "evaluate_every is 0"),
    ],
)
def test_presets_that_cannot_work_are_refused_before_anything_is_trained(changes, words, hopper_dataset, tmp_path):
    with pytest.raises(DyDiffError, match=words):
        World.fit(hopper_dataset, preset=replace(TINY, **changes), out=tmp_path / "world")
    assert not list(tmp_path.iterdir())


def test_what_a_world_dreams_by_is_its_fingerprint(tiny_world, tiny_world_path):
    known = world_fingerprint(tiny_world)
    assert world_fingerprint(World.load(tiny_world_path)) == known
    other = World.load(tiny_world_path)
    other.normalizer.mean[0] += 1e-3
    assert world_fingerprint(other) != known
    other = World.load(tiny_world_path)
    other.preset = replace(other.preset, refinement=replace(other.preset.refinement, nudge=1.0))
    assert world_fingerprint(other) != known


def test_fitting_leaves_torchs_draws_alone(hopper_dataset):
    few = {name: replace(getattr(TINY, name), steps=2) for name in vars(TINY) if name.endswith("_training")}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    World.fit(hopper_dataset, preset=replace(TINY, **few, anchors=replace(TINY.anchors, windows=64)))
    assert torch.equal(torch.rand(3), expected)


def test_too_few_steps_to_hold_any_out():
    spec = DatasetSpec(gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(-1, 1, (1,)))
    one = Episode(np.zeros((2, 2), np.float32), np.zeros((1, 1), np.float32), np.zeros(1, np.float32), False)
    with pytest.raises(DyDiffError, match="too few"):
        World.fit(Dataset.from_episodes(spec, [one] * 5), preset="tiny")


def test_one_process_fits_a_folder(hopper_dataset, tmp_path):
    with sole_writer(tmp_path / "world"), pytest.raises(DyDiffError, match="Another process"):
        World.fit(hopper_dataset, preset="tiny", out=tmp_path / "world")


def test_an_unfinished_fit_of_other_settings_is_gone_on_with_or_overwritten(hopper_dataset, tmp_path):
    few = {name: replace(getattr(TINY, name), steps=2) for name in vars(TINY) if name.endswith("_training")}
    tiny = replace(TINY, **few, anchors=replace(TINY.anchors, windows=64))
    (tmp_path / "world.partial").mkdir()
    (tmp_path / "world.partial" / "claim.json").write_text("another")
    with pytest.raises(DyDiffError, match="unfinished fit of another"):
        World.fit(hopper_dataset, preset=tiny, out=tmp_path / "world")
    World.fit(hopper_dataset, preset=tiny, out=tmp_path / "world", overwrite=True)
    (tmp_path / "world.partial").mkdir()
    (tmp_path / "world.partial" / "reward.pt").write_text("left by a removal that was cut short")
    World.fit(hopper_dataset, preset=tiny, out=tmp_path / "world", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]
    assert repr(World.load(tmp_path / "world")).count("\n") == 0


class Draws:
    """Acts at random, whatever it is told."""

    def act(self, observations: torch.Tensor, deterministic: bool = True) -> torch.Tensor:
        return torch.rand(len(observations), 3) - 0.5


def test_a_policy_that_always_draws_meets_the_same_draws_in_every_pass(tiny_world) -> None:
    """Refinement goes over a rollout again: with other draws, states would follow other actions than those stored."""
    starts = tiny_world.sample_starts(16)
    told = [tiny_world.dream(Draws(), starts, 20, 1, deterministic=mode, trust=1.0, seed=5) for mode in (True, False)]
    for name in ("observations", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(told[0], name), getattr(told[1], name))


def test_draws_that_no_seed_reaches_cannot_be_refined(tiny_world) -> None:
    rng, starts = np.random.default_rng(0), tiny_world.sample_starts(4)
    policy = as_policy(lambda rows: torch.as_tensor(rng.uniform(-1, 1, (len(rows), 3))), tiny_world.spec)
    for deterministic in (True, False):
        with pytest.raises(DyDiffError, match="iterations 0"):
            tiny_world.dream(policy, starts, 8, 1, deterministic=deterministic)
    assert tiny_world.dream(policy, starts, 8, 0).lengths.min() >= 1


def test_a_world_none_of_whose_starts_had_a_step_before_is_read_back(tiny_world, tmp_path) -> None:
    replace(tiny_world, before_bank=np.full_like(tiny_world.before_bank, np.nan)).save(tmp_path / "world")
    assert np.isnan(World.load(tmp_path / "world").sample_before(5)).all()


def test_a_loss_that_is_no_number_spoils_only_its_look() -> None:
    module, kept, state = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), {"best": [], "stale": 0}
    for losses in ([torch.nan, 3.0], [2.0, torch.nan], [1.0, 2.0]):
        _keep_best(state, module, kept, torch.tensor(losses), None)
    assert state["best"] == [1.0, 2.0]
