"""The world: everything learned from a dataset, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.minari_io import Source
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError, unknown
from dydiff_env.policies.policy import Policy
from dydiff_env.world.denoiser import Condition
from dydiff_env.world.error_scale import ErrorScale, condition
from dydiff_env.world.models import Models, action_bounds
from dydiff_env.world.networks import in_blocks
from dydiff_env.world.presets import Preset
from dydiff_env.world.rollout import Rollout
from dydiff_env.world.sampler import sample
from dydiff_env.world.trust import Trust

LONGEST = 1000  # steps: the longest that an episode is dreamt where only the log says how long one is


def _drawn(bank: int, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(bank, n, replace=n > bank)


def _apply(rule: Callable[[Tensor], Tensor], normalizer: Normalizer, states: Tensor) -> Tensor:
    return rule(normalizer.denormalize(states))


@dataclass
class World:
    """A world model of a logged dataset, which rolls out any policy over long horizons.

    Make one with :meth:`fit`, or :meth:`load` one.

    Args:
        spec: spaces, source environment and reference scores of the dataset.
        preset: every setting.
        models: the networks.
        normalizer: of observations.
        error_scale: the single-step rollout's expected error; None in the ``paper`` form.
        start_bank: (K, O) float32 states of the data, environment units.
        initial_bank: (K', O) float32 first states of episodes.
        before_bank: (K, O + A) float32, for each of ``start_bank`` the observation and the action of the step before, NaN where there was
            none; None where the single-step model has no memory.
        record: how the world was made and how good it was found to be; plain values.
    """

    spec: DatasetSpec
    preset: Preset
    models: Models
    normalizer: Normalizer
    error_scale: ErrorScale | None
    start_bank: np.ndarray
    initial_bank: np.ndarray
    before_bank: np.ndarray | None = None
    record: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"World({self.spec.dataset_id!r}, preset={self.preset.name!r}, horizon={self.horizon}, device={str(self.device)!r})"

    def __post_init__(self) -> None:
        self.models.eval().requires_grad_(False)
        self.models.dynamics.cache_elites()
        # Bounds of actions, (A,).
        self.low, self.high = (bound.to(self.device) for bound in action_bounds(self.spec))

    # --- what it is

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.normalizer.mean.device

    @property
    def horizon(self) -> int:
        """L, steps of a window."""
        return self.preset.horizon

    @property
    def iterations(self) -> int:
        """M, how often a dream is refined unless the caller says otherwise."""
        return self.preset.refinement.iterations

    @property
    def episode_limit(self) -> int:
        """Steps of the longest episode, by the environment, else by the log; but 1 000 at most, where none as long was logged."""
        limit = self.spec.environment.max_episode_steps if self.spec.environment else None
        longest: int = self.record["dataset"]["longest"]
        return min(limit, max(LONGEST, longest)) if limit else min(longest, LONGEST)

    @property
    def anchored(self) -> bool:
        """Whether the denoiser corrects the single-step rollout, or works free of it as in the paper."""
        return self.error_scale is not None

    @classmethod
    def fit(
        cls,
        dataset: Source,
        *,
        preset: str | Preset = "fast",
        seed: int = 0,
        out: str | Path | None = None,
        device: str | torch.device = "cpu",
        overwrite: bool = False,
        progress: bool = False,
        tensorboard: str | Path | None = None,
    ) -> World:
        """Train a world on a dataset; see :func:`dydiff_env.world.fit.fit`."""
        from dydiff_env.world.fit import fit  # fit builds Worlds, so it stands above this file

        return fit(
            dataset, preset=preset, seed=seed, out=out, device=device, overwrite=overwrite, progress=progress,
            tensorboard=tensorboard,
        )

    def use_termination(self, rule: Callable[[Tensor], Tensor] | None) -> None:
        """End dreams by an exact rule instead of the learned one; None goes back to the learned one.

        The rule is not saved with the world: a file should not name code to run.

        Args:
            rule: next observations (…, O), environment units, to bool (…): are they terminal?
        """
        self.models.termination.rule = None if rule is None else partial(_apply, rule, self.normalizer)

    # --- what can be asked of it

    def sample_starts(
        self, n: int, seed: int = 0, kind: Literal["dataset", "initial"] = "dataset"
    ) -> np.ndarray:
        """Draw start states (n, O), environment units: from anywhere in the data, or from the starts of episodes.

        :meth:`sample_before` draws what a world with memory knows of them besides.
        """
        bank = {"dataset": self.start_bank, "initial": self.initial_bank}.get(kind)
        if bank is None:
            raise unknown("kind of start", kind, ("dataset", "initial"))
        return bank[_drawn(len(bank), n, seed)]

    def sample_before(self, n: int, seed: int = 0, kind: Literal["dataset", "initial"] = "dataset") -> np.ndarray:
        """The steps that led to the states that :meth:`sample_starts` draws with the same arguments, for :meth:`dream`.

        Returns:
            (n, O + A) float32, observations and actions in environment units; NaN where there was no step before.
        """
        if kind not in ("dataset", "initial"):
            raise unknown("kind of start", kind, ("dataset", "initial"))
        if self.before_bank is None or kind == "initial":
            return np.full((n, self.spec.observation_size + self.spec.action_size), np.nan, np.float32)
        return self.before_bank[_drawn(len(self.before_bank), n, seed)]

    def dream(
        self,
        policy: Policy | None,
        starts: np.ndarray | Tensor,
        horizon: int | None = None,
        iterations: int | None = None,
        *,
        deterministic: bool = True,
        seed: int = 0,
        first_actions: np.ndarray | Tensor | None = None,
        trust: Trust | float | None = None,
        before: np.ndarray | Tensor | None = None,
        goes_on: np.ndarray | None = None,
        fate: np.ndarray | None = None,
    ) -> Trajectories:
        """Roll a policy out: single-step rollout (Eq. 6), M refinements (Eqs. 7–9), rewards (Eq. 11), cut at terminations.

        Args:
            policy: what acts; None only with ``horizon=1`` and ``first_actions``.
            starts: (B, O), environment units.
            horizon: steps; default: the window. A longer one chains windows, each from where the last one ended.
            iterations: M; default: the world's own; 0 is the plain single-step rollout.
            deterministic: the policy's mode, or draws from it (one draw a step, the same in every iteration).
            seed: of the draws.
            first_actions: (B, A), taken at the first step in place of the policy's; within the bounds, as those are.
            trust: what :meth:`trust_in` this policy said, or a share of the denoiser's correction; default: asked now, which costs about
                as much as dreaming 250 starts.
            before: (B, O + A), the observation and the action of the step that led to each start, NaN where unknown
                (:meth:`sample_before`). A world that was trained with memory knows a start the better for it. Default: all unknown.
            goes_on: (B,) steps from which further dreams will start, inf where none will. The members' correction, a mean of states that
                are possible and hardly one itself, fades before that, as it does between the windows of a long dream. Default: nothing
                goes on.
            fate: (B,) numbers in [0, 1) that decide when dreams end within the first window: the higher, the sooner. Default: drawn, as for
                all further windows.

        Returns:
            B trajectories. Their actions are the policy's own on their observations (Eq. 8), but for ``first_actions``.

        Raises:
            DyDiffError: for a start or action of the wrong width, more or fewer of anything than starts, or a policy missing.
        """
        from dydiff_env.world.dream import dream  # it dreams in Worlds, so it stands above this file

        return dream(
            self, policy, starts, horizon, iterations, deterministic=deterministic, seed=seed,
            first_actions=first_actions, trust=trust, before=before, goes_on=goes_on, fate=fate,
        )

    def trust_in(self, policy: Policy) -> Trust:
        """How far corrections of this policy's rollouts are to be believed; :mod:`dydiff_env.world.trust` says how.

        It depends on the policy and the world alone. Ask once where one policy is dreamt many times.

        Returns:
            The shares of the denoiser's correction and of the members'; one number for the first, where the preset gives it.
        """
        from dydiff_env.world.dream import trust_in

        return trust_in(self, policy)

    def sample_states(
        self, rolled: Rollout, actions: Tensor, generator: torch.Generator | None = None, rows: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw s_1 … s_L (B, L, O) ~ p_θ(· | s_0, actions) (Eq. 7), normalised; and how likely each step lives (B, L).

        Args:
            rolled: the single-step rollout.
            actions: (B, L, A), whose states are asked for.
            generator: of the noise.
            rows: windows per network call; default: few on a processor, whose cache they fit, and many on a GPU.
        """
        if self.error_scale is not None:
            whole = condition(rolled, self.error_scale(rolled.disagreement), actions)
        else:
            whole = Condition(rolled.states[:, 0], actions, torch.ones_like(rolled.alive))
        rows = rows or (64 if self.device.type == "cpu" else 2048)
        out = []
        for begin in range(0, len(actions), rows):
            c = whole.rows(slice(begin, begin + rows))
            shape = (len(c.starts), actions.shape[1], c.starts.shape[1] + (c.anchor is not None))
            denoise = partial(self.models.denoiser, condition=c)
            x = sample(denoise, shape, self.preset.sampler, generator, self.device)
            out.append(x if c.anchor is None or c.scale is None else c.anchor + c.scale * x)
        drawn = torch.cat(out)
        states = drawn[..., : rolled.states.shape[-1]]
        if self.error_scale is None or self.models.termination.rule is not None:
            return states, in_blocks(self.models.termination.outlived, states, rows=128).cumprod(1)
        if torch.isinf(self.models.termination.threshold):
            return states, rolled.alive
        return states, drawn[..., -1]

    def check_width(self, what: str, rows: Tensor, size: int) -> None:
        """Make sure that ``rows`` are (B, size).

        Raises:
            DyDiffError: naming the shape they have.
        """
        if rows.dim() != 2 or rows.shape[1] != size:
            raise DyDiffError(
                f"This world's {what}s are {size} numbers wide, but the {what}s given have shape {tuple(rows.shape)}.",
                f"Use {what}s of shape (B, {size}), flattened as gymnasium.spaces.flatten does.",
                usage=True,
            )

    # --- on disk

    def tensors(self) -> dict[str, Tensor]:
        """Every number the world dreams by, by name."""
        tensors = {f"models.{name}": value for name, value in self.models.state_dict().items()}
        tensors |= {
            "normalizer.mean": self.normalizer.mean,
            "normalizer.std": self.normalizer.std,
            "normalizer.low": self.normalizer.low,
            "normalizer.high": self.normalizer.high,
            "start_bank": torch.from_numpy(self.start_bank),
            "initial_bank": torch.from_numpy(self.initial_bank),
        }
        if self.before_bank is not None:
            tensors["before_bank"] = torch.from_numpy(self.before_bank)
        if self.error_scale is not None:
            tensors["error_scale.intercept"] = self.error_scale.intercept
            tensors["error_scale.slope"] = self.error_scale.slope
        return tensors

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the folder ``path``: ``world.json`` and ``world.safetensors``, whole or not at all.

        Raises:
            DyDiffError: where ``path`` exists and ``overwrite`` is False.
        """
        from dydiff_env.world import storage  # it makes Worlds, so it stands above this file

        storage.save(self, Path(path).expanduser(), overwrite)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> World:
        """Read a world that :meth:`save` wrote. Reads JSON and safetensors only: no code runs.

        Raises:
            DyDiffError: where the folder is missing, incomplete, damaged, or of another schema, or the device cannot be used.
        """
        from dydiff_env.world import storage  # it makes Worlds, so it stands above this file

        return storage.load(Path(path).expanduser(), device)
