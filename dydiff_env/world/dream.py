"""Dreaming: a policy rolled out by the single-step model, refined by the denoiser, scored, and cut where it ends."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.draws import own_draws, stream
from dydiff_env.policies.policy import Policy
from dydiff_env.products import fast_products
from dydiff_env.world.acting import Acting, draws, repeats
from dydiff_env.world.networks import in_blocks
from dydiff_env.world.nudge import nudger
from dydiff_env.world.refine import ahead, in_place, refine
from dydiff_env.world.rollout import Rollout, apart, rollout
from dydiff_env.world.transformer import TransformerConfig
from dydiff_env.world.trust import STARTS, Trust, borne_out, elsewhere, shares
from dydiff_env.world.world import World

NOISE, FATE, ACTIONS = range(3)  # what a dream's seed decides, each by a stream of its own
FADE = 25  # steps over which the members' correction vanishes before a further window


@torch.no_grad()
def dream(
    world: World,
    policy: Policy | None,
    starts: np.ndarray | Tensor,
    horizon: int | None,
    iterations: int | None,
    *,
    deterministic: bool,
    seed: int,
    first_actions: np.ndarray | Tensor | None,
    trust: Trust | float | None,
    before: np.ndarray | Tensor | None,
    goes_on: np.ndarray | None,
    fate: np.ndarray | None,
) -> Trajectories:
    """What :meth:`World.dream` says."""
    if policy is not None and not callable(getattr(policy, "act", None)):
        raise DyDiffError(
            f"A {type(policy).__name__} is no policy: it has no act(observations, deterministic).",
            "Pass load_policy(it, world.spec), which takes files, names, functions and agents.",
            usage=True,
        )
    horizon = world.horizon if horizon is None else horizon
    iterations = world.iterations if iterations is None else iterations
    first = None if first_actions is None else torch.as_tensor(first_actions).to(world.device, torch.float32)
    if policy is None and (first is None or horizon != 1):
        raise DyDiffError(
            "A dream without a policy is one step long and needs the action.",
            "Pass horizon=1 and first_actions, or a policy.",
            usage=True,
        )
    if horizon < 1 or iterations < 0:
        raise DyDiffError(
            f"horizon={horizon}, iterations={iterations}.",
            "Use at least one step and no fewer than 0 iterations.",
            usage=True,
        )
    states = torch.as_tensor(starts).to(world.device, torch.float32)
    world.check_width("observation", states, world.spec.observation_size)
    if first is not None:
        world.check_width("action", first, world.spec.action_size)
        first = first.clamp(world.low, world.high)
    for what, given in (("first actions", first), ("numbers of steps to go on", goes_on), ("fates", fate)):
        if given is not None and len(given) != len(states):
            raise DyDiffError(f"{len(states)} starts, but {len(given)} {what}.", "Pass one for each start.", usage=True)
    states = world.normalizer.normalize(states)
    seeded = not deterministic
    if policy is None:
        iterations = 0  # a correction is of a policy's rollout
    elif iterations:
        # A refinement goes over a rollout again. With other draws than before, it would correct the states towards those of other actions.
        seeded = draws(world, policy, deterministic)
        if seeded and not repeats(world, policy, deterministic):
            raise DyDiffError(
                "The policy draws its actions by a generator of its own: a refinement, which goes over a rollout again, would meet others.",
                "Draw with torch, which is seeded at every step, or dream by single steps: --iterations 0 (iterations=0).",
                usage=True,
            )
        if trust is None:
            trust = trust_in(world, policy)
    memory = _recalled(world, before, states)
    generator = torch.Generator().manual_seed(stream(seed, NOISE))
    further = torch.full((len(states),), torch.inf) if goes_on is None else torch.as_tensor(goes_on, dtype=torch.float32)
    further = further.to(world.device)
    rows = torch.arange(len(states), device=world.device)  # those that still live
    along = states[:, None].repeat(1, horizon + 1, 1)
    actions = torch.zeros(len(states), horizon, world.spec.action_size, device=world.device)
    uncertainties = torch.zeros(len(states), horizon, device=world.device)
    alive = torch.zeros(len(states), horizon, dtype=torch.bool, device=world.device)
    with fast_products(world.device), own_draws(world.device, stream(seed, ACTIONS)):  # for a policy that draws whatever it is told
        for begin in range(0, horizon, world.horizon):
            if not len(rows):
                break
            end = min(begin + world.horizon, horizon)
            if begin:
                memory = world.models.dynamics.recall(along[rows, begin - 1], actions[rows, begin - 1], along[rows, begin])
            draws_from = stream(seed, ACTIONS, begin) if seeded else None
            window = _window(
                Acting(world, policy, deterministic, draws_from, first if begin == 0 else None),
                along[rows, begin],
                memory,
                end - begin,
                iterations,
                generator,
                trust if isinstance(trust, Trust) else Trust(1.0 if trust is None else trust),
                torch.full_like(further[rows], end - begin) if end < horizon else further[rows] - begin,
                _drawn(len(rows), stream(seed, FATE, begin)) if begin or fate is None else torch.from_numpy(fate),
            )
            along[rows, begin : end + 1], actions[rows, begin:end] = window[0], window[1]
            uncertainties[rows, begin:end], alive[rows, begin:end] = window[2], window[3]
            rows = rows[window[3].all(1)]
    return _cut(world, along, actions, uncertainties, alive)


@torch.no_grad()
def trust_in(world: World, policy: Policy) -> Trust:
    """What :meth:`World.trust_in` says."""
    given = world.preset.refinement.trust
    if given is not None or not world.anchored:
        return Trust(1.0 if given is None else given)
    starts = world.normalizer.normalize(torch.from_numpy(world.sample_starts(STARTS)).to(world.device))
    memory = _recalled(world, world.sample_before(STARTS), starts)

    acting = Acting(world, policy, seed=stream(0, ACTIONS))  # seeded, so that a policy that draws draws alike in every rollout
    dynamics, ends, length = world.models.dynamics, world.models.termination, world.horizon
    members, found = range(dynamics.config.members), []
    with fast_products(world.device), own_draws(world.device):
        alone = list(apart(dynamics.only(members), ends, acting.each, starts, length, memory))
        lives = torch.stack([ends.outlived(states) for states, _ in alone]).cumprod(0)  # at every step, as the anchor's
        for m in members:
            others = [n for n in members if n != m]
            if rest := [n for n in dynamics.elites.tolist() if n != m]:
                anchor = rollout(dynamics.only(rest), ends, acting, starts, length, memory)
                following, living = world.sample_states(anchor, anchor.actions, torch.Generator().manual_seed(0))
                denoiser = torch.cat([following, living[..., None]], -1)
                truth = torch.cat([torch.stack([states[m] for states, _ in alone], 1), lives[:, m].T[..., None]], -1)
                e = elsewhere(anchor, ((states[others], alive[others]) for states, alive in alone))
                found.append(shares(anchor, truth, denoiser, e))
    return borne_out(found)


def _window(
    acting: Acting,
    states: Tensor,
    memory: Tensor,
    horizon: int,
    iterations: int,
    generator: torch.Generator,
    trust: Trust,
    goes_on: Tensor,
    fate: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One window, normalised: states (B, L+1, O), actions (B, L, A), uncertainties and alive (B, L)."""
    world = acting.world
    dynamics, ends, config = world.models.dynamics, world.models.termination, world.preset.refinement
    kept, horizon = horizon, _whole_patches(world, horizon) if iterations else horizon
    rolled = rollout(dynamics, ends, acting, states, horizon, memory)
    start = ahead(rolled)
    others: Tensor | float = 0.0
    if iterations and trust.asks_members:
        every = dynamics.only(range(dynamics.config.members))
        others = elsewhere(rolled, apart(every, ends, acting.each, states, horizon, memory))
    # A mean of rollouts is nowhere any of them is: a window that starts there falls too soon. So it fades before the next one.
    left = goes_on[:, None, None] - 1 - torch.arange(horizon, device=world.device)[:, None]
    share = trust.members * (left / FADE).clamp(0, 1)

    def sample(r: Rollout, a: Tensor) -> tuple[Tensor, Tensor]:
        return world.sample_states(r, a, generator) if trust.asks_denoiser else (r.states[:, 1:], r.alive)

    def believe(drawn: Tensor) -> Tensor:
        wanted = start + trust.denoiser * (drawn - start)
        wanted[..., :-1] += share * others
        return wanted

    nudged = iterations > 0 and config.nudge < 1
    refined, actions, alive = refine(
        rolled,
        sample,
        nudger(dynamics, rolled, acting, config.nudge) if nudged else in_place(states, acting.along),
        iterations,
        config.update,
        believe,
    )
    drawn = ends.rule is None and bool(ends.sharpness.isfinite())
    if iterations and (ends.rule is not None or drawn or not world.anchored):
        # What ends a dream reads states: it is to read those that are shown, not the samples they were made of.
        alive = in_blocks(ends.outlived, refined[:, 1:], rows=128).cumprod(1)
    # When a rollout ends is drawn from how likely it lives, so that as many live as should. The margins keep a denoiser
    # that is a little unsure from ending long dreams.
    enough = (fate if drawn else 0.05 + 0.9 * fate)[:, None].to(world.device, torch.float32)
    # A refined dream may outlive the single-step rollout, which has nothing to say after its end: what it last said holds on.
    last = (rolled.alive > 0).sum(1, keepdim=True)
    said = torch.minimum(torch.arange(horizon, device=world.device), last)
    uncertainties = rolled.disagreement.gather(1, said)
    return refined[:, : kept + 1], actions[:, :kept], uncertainties[:, :kept], alive[:, :kept] > enough


def _whole_patches(world: World, horizon: int) -> int:
    """Steps to imagine, so that those asked for are what any longer window begins with.

    A causal denoiser sees whole patches; any other the whole window, as it did in training.
    """
    network = world.preset.network
    patch = network.patch if isinstance(network, TransformerConfig) else world.horizon
    return min(-(-horizon // patch) * patch, world.horizon)


def _recalled(world: World, before: np.ndarray | Tensor | None, states: Tensor) -> Tensor:
    """What the single-step model recalls (B, P) of the steps (B, O + A) that led to normalised states (B, O)."""
    sizes = [world.spec.observation_size, world.spec.action_size]
    if before is None:
        before = torch.full((len(states), sum(sizes)), torch.nan)
    steps = torch.as_tensor(before).to(world.device, torch.float32)
    world.check_width("step", steps, sum(sizes))
    if len(steps) != len(states):
        raise DyDiffError(f"{len(states)} starts, but {len(steps)} steps before them.", "Pass one for each start.", usage=True)
    observations, actions = steps.split(sizes, -1)
    return world.models.dynamics.recall(
        world.normalizer.normalize(observations), actions, states, known=steps.isfinite().all(-1)
    )


def _drawn(rows: int, seed: int) -> Tensor:
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed))


def _cut(world: World, states: Tensor, actions: Tensor, uncertainties: Tensor, alive: Tensor) -> Trajectories:
    """Score and cut: rewards from r_ψ, the end at the first step that is not outlived."""
    horizon = actions.shape[1]
    shown = world.normalizer.within(states)
    terminated = ~alive.all(1)
    lengths = torch.where(terminated, (~alive).float().argmax(1) + 1, horizon)
    rewards = in_blocks(world.models.reward, shown[:, :-1], actions, shown[:, 1:], ~alive, rows=32)
    observations = world.normalizer.denormalize(states)
    return Trajectories(
        *(x.cpu().numpy() for x in (observations, actions, rewards, terminated, lengths, uncertainties))
    )
