"""Fitting a world: reward, termination, dynamics, behaviour clones, training rollouts, denoiser, and a look at the result."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from dydiff_env.data.dataset import Dataset
from dydiff_env.data.goals import one_goal_each
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.data.windows import window_starts
from dydiff_env.errors import DyDiffError
from dydiff_env.progress import progress_bar
from dydiff_env.world.batches import Batches, split
from dydiff_env.world.denoiser import Condition
from dydiff_env.world.dynamics import keep_members
from dydiff_env.world.error_scale import ErrorScale
from dydiff_env.world.feedback import closed_loop, feedback_windows, refined_condition, training_condition
from dydiff_env.world.heldout import choose_refinement, held_out_fidelity
from dydiff_env.world.models import Models
from dydiff_env.world.parallel import Processes, processes
from dydiff_env.world.presets import Preset, get_preset
from dydiff_env.world.rollout import Rollout
from dydiff_env.world.training import TrainingConfig, train
from dydiff_env.world.world import World

BANK = 8192  # start states a world carries
CHUNK = 500  # windows rolled out at a time for the training bank,
SAVED = 20  # and chunks after which a killed fit goes on
HELD_OUT_ROWS = 20_000  # transitions in a held-out look


def fit(
    dataset: Dataset | str | Path,
    *,
    preset: str | Preset = "fast",
    seed: int = 0,
    out: str | Path | None = None,
    device: str | torch.device = "cpu",
    overwrite: bool = False,
    progress: bool = False,
    tensorboard: str | Path | None = None,
) -> World:
    """Train a world.

    Args:
        dataset: a Dataset, a Minari id, or a Minari folder.
        preset: "fast", "paper", "tiny", or settings of your own.
        seed: of everything random.
        out: the folder the world is saved to. Work goes on in ``out.partial``: a killed fit, started again with the same arguments,
            continues and ends with the same world (bit for bit on the CPU with the same number of threads).
        device: where to train.
        overwrite: replace an existing ``out``.
        progress: show progress bars.
        tensorboard: folder that the training curves are written to as they grow.

    Where goals are replaced within episodes, as in D4RL's mazes, each goal's stretch counts as an episode that ends there
    (:mod:`dydiff_env.data.goals`).

    Raises:
        DyDiffError: for a dataset that cannot be read, an existing ``out``, or a partial fit of other settings.
    """
    settings, data = get_preset(preset), one_goal_each(load_dataset(dataset))
    peers = processes(device)
    log = tensorboard_log(tensorboard if peers.main else None)
    how = (torch.device(device), progress and peers.main, log, peers)
    if out is None:
        with tempfile.TemporaryDirectory() as scratch:
            world = _Fit(data, settings, seed, Path(peers.tell(scratch)), *how).run()
            peers.wait()
            return world
    target = Path(out)
    if target.exists() and not overwrite:
        raise DyDiffError(f"{target} exists.", "Choose another --out, or pass --overwrite.", usage=True)
    folder = target.with_name(target.name + ".partial")
    claim = json.dumps(
        {"dataset": data.spec.fingerprint, "preset": settings.to_dict(), "seed": seed}, sort_keys=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    if peers.main and not (folder / "claim.json").exists():
        (folder / "claim.json").write_text(claim)
    peers.wait()
    if (folder / "claim.json").read_text() != claim:
        raise DyDiffError(
            f"{folder} holds an unfinished fit of another dataset, preset or seed.",
            f"Finish that one with its own arguments, or delete {folder}.",
            usage=True,
        )
    world = _Fit(data, settings, seed, folder, *how).run()
    if peers.main:
        world.save(target, overwrite=overwrite)
        shutil.rmtree(folder)
    peers.wait()
    return world


@dataclass
class _Fit:
    """One fit, stage by stage. Each stage leaves a checkpoint in ``folder`` and is skipped when it finds it finished."""

    data: Dataset
    preset: Preset
    seed: int
    folder: Path
    device: torch.device
    progress: bool
    log: Callable[[str, float, int], None] | None = None
    peers: Processes = field(default_factory=Processes)

    def run(self) -> World:
        """All stages; returns the world."""
        torch.manual_seed(self.seed)  # initial weights
        self.models = Models(self.data.spec, self.preset).to(self.device)
        self.normalizer = Normalizer.fit(self.data.observations).to(self.device)
        self.batches = Batches(self.data, self.normalizer, self.device)
        self.split = split(self.data, self.preset.horizon, seed=self.seed)
        rng = np.random.default_rng(self.seed)
        look = rng.choice(self.split.held_out, min(HELD_OUT_ROWS, len(self.split.held_out)), replace=False)
        self.held_out = self.batches.steps(np.sort(look))
        record: dict[str, Any] = {
            "dataset": {
                "id": self.data.spec.dataset_id,
                "fingerprint": self.data.spec.fingerprint,
                "episodes": len(self.data),
                "transitions": self.data.transitions,
            },
            "seed": self.seed,
        }
        if self.progress and self.peers.count == 1:  # the rehearsal is of one process
            from dydiff_env.world.estimate import announce_fit  # it rehearses fits: it stands above

            announce_fit(self)
        record["training"], scale = self.fit_stages()
        world = World(
            self.data.spec, self.preset, self.models, self.normalizer, scale, *self.start_banks(rng), record
        )
        record["parameters"] = {
            name: sum(p.numel() for p in part.parameters()) for name, part in self.models.named_children()
        }
        record["fidelity"] = held_out_fidelity(world, self.batches, self.split.held_out, seed=self.seed)
        if self.preset.anchors is not None:
            refinement, record["refinement"] = choose_refinement(world.preset.refinement, record["fidelity"])
            world.preset = dataclasses.replace(world.preset, refinement=refinement)
        return world

    def fit_stages(self) -> tuple[dict[str, Any], ErrorScale | None]:
        """Train every part in its order; returns the records of their training, and the error scale of an anchored world."""
        training: dict[str, Any] = {}
        training["reward"] = self.fit_reward()
        training["termination"] = self.fit_termination()
        training["dynamics"] = self.fit_dynamics()
        if self.preset.anchors is None:
            training["denoiser"] = self.fit_free_denoiser()
            return training, None
        training["behavior"] = self.fit_behavior()
        began = time.monotonic()
        bank, scale = self.roll_out_anchors()
        training["anchors"] = {
            "windows": len(bank["clone"]),
            "seconds": round(time.monotonic() - began, 1),
        }
        training["denoiser"] = self.fit_anchored_denoiser(bank, scale)
        return training, scale

    def start_banks(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """States that dreams may start from: any but the last of an episode, and the first ones."""
        some = np.sort(rng.choice(self.data.transitions, min(BANK, self.data.transitions), replace=False))
        first = np.sort(rng.choice(len(self.data), min(BANK, len(self.data)), replace=False))
        rows = (some + self.data.episode_of(some), self.data.offsets[first] + first)
        anywhere, initial = (np.array(self.data.observations[index], np.float32) for index in rows)
        return anywhere, initial

    def draw(self, generator: torch.Generator, *shape: int) -> np.ndarray:
        """Transitions of the training part, uniformly."""
        return self.split.train[torch.randint(len(self.split.train), shape, generator=generator).numpy()]

    # --- single-step models

    def fit_reward(self) -> dict[str, Any]:
        """r_ψ (Eq. 10)."""
        model, config, held = self.models.reward, self._own(self.preset.reward_training), self.held_out
        sample = self.batches.steps(self.draw(torch.Generator().manual_seed(self.seed), 50_000)).rewards
        model.mean.copy_(sample.mean())
        model.std.copy_(sample.std().clamp(min=1e-6))

        def loss(generator: torch.Generator) -> Tensor:
            step = self.batches.steps(self.draw(generator, config.batch))
            return model.loss(step.states, step.actions, step.next_states, step.rewards)

        def holdout() -> Tensor:
            return model.loss(held.states, held.actions, held.next_states, held.rewards)

        done = train(
            "reward",
            model,
            loss,
            config,
            seed=self.seed,
            holdout=torch.no_grad()(holdout),
            **self._files("reward"),
        )
        variance = (held.rewards / model.std).var().clamp(min=1e-12)
        return {**done, "r2": float(1 - holdout().detach() / variance)}

    def fit_termination(self) -> dict[str, Any]:
        """The termination model, or none where no episode terminates."""
        model, config = self.models.termination, self._own(self.preset.termination_training)
        ends = self.batches.terminal_steps
        train_ends, held_ends = (np.intersect1d(ends, part) for part in self.split)
        if len(train_ends) < 2:
            return {
                "steps": 0,
                "note": "No episode of the data ends in a terminal state: this world never terminates.",
            }
        # Near misses, the steps just before an end, teach where the border runs.
        near = np.intersect1d(self.split.train, (train_ends[:, None] - np.arange(1, 6)).reshape(-1))
        near = np.setdiff1d(near, ends)

        def loss(generator: torch.Generator) -> Tensor:
            def some(of: np.ndarray, n: int) -> np.ndarray:
                return of[torch.randint(len(of), (n,), generator=generator).numpy()]

            fifth = config.batch // 5
            parts = [
                some(train_ends, 2 * fifth),
                self.draw(generator, fifth),
                some(near if len(near) else ends, 2 * fifth),
            ]
            step = self.batches.steps(np.concatenate(parts))
            return model.loss(step.next_states, step.terminal)

        done = train("termination", model, loss, config, seed=self.seed, **self._files("termination"))
        # The threshold wants many terminal states and their true share, so it is set on training and held-out states...
        rng = np.random.default_rng(self.seed)
        rows = np.union1d(
            rng.choice(self.split.train, min(200_000, len(self.split.train)), replace=False), train_ends
        )
        step = self.batches.steps(rows)
        done["train"] = model.calibrate(step.next_states, step.terminal)
        # ... and judged on held-out ones alone.
        step = self.batches.steps(np.union1d(self.split.held_out[: 10 * HELD_OUT_ROWS], held_ends))
        called, real = model.terminal(step.next_states), step.terminal.bool()
        hits = float((called & real).sum())
        done["held_out"] = {
            "precision": hits / max(1.0, float(called.sum())),
            "recall": hits / max(1.0, float(real.sum())),
            "terminal_states": int(real.sum()),
        }
        return done

    def fit_dynamics(self) -> dict[str, Any]:
        """T_φ (Eq. 5): members on draws of their own, the best weights of each kept, elites chosen on held-out data."""
        model, config, held = self.models.dynamics, self._own(self.preset.dynamics_training), self.held_out
        sample = self.batches.steps(self.draw(torch.Generator().manual_seed(self.seed), 50_000))
        change = sample.next_states - sample.states
        model.delta_mean.copy_(change.mean(0))
        model.delta_std.copy_(change.std(0).clamp(min=1e-6))

        def loss(generator: torch.Generator) -> Tensor:
            step = self.batches.steps(self.draw(generator, model.config.members, config.batch))
            return model.loss(step.states, step.actions, step.next_states)

        def holdout() -> Tensor:
            return model.errors(held.states[:5000], held.actions[:5000], held.next_states[:5000])

        done = train(
            "dynamics",
            model,
            loss,
            config,
            seed=self.seed,
            holdout=holdout,
            keep_best=keep_members,
            **self._files("dynamics"),
        )
        model.choose_elites(model.errors(held.states, held.actions, held.next_states))
        return done

    def fit_behavior(self) -> dict[str, Any]:
        """β_j, each on one quantile of the episodes by return."""
        model, config = self.models.behavior, self._own(self.preset.behavior_training)
        assert model is not None
        rank = self.data.returns.argsort().argsort() * model.config.clones // len(self.data)
        of_step = rank[self.data.episode_of(self.split.train)]
        slices = [self.split.train[of_step == j] for j in range(model.config.clones)]
        slices = [rows if len(rows) else self.split.train for rows in slices]

        def loss(generator: torch.Generator) -> Tensor:
            total = torch.zeros((), device=self.device)
            for j, rows in enumerate(slices):
                step = self.batches.steps(
                    rows[torch.randint(len(rows), (config.batch,), generator=generator).numpy()]
                )
                total = total + (model(j, step.states) - step.actions).square().mean()
            return total

        return train("behaviour", model, loss, config, seed=self.seed, **self._files("behavior"))

    # --- the denoiser

    def roll_out_anchors(self) -> tuple[dict[str, np.ndarray], ErrorScale]:
        """The training rollouts of the policies π_w, kept on disk, and the expected error fitted to them."""
        config, behavior, length = self.preset.anchors, self.models.behavior, self.preset.horizon
        assert config is not None and behavior is not None
        rng = np.random.default_rng(self.seed + 1)
        starts = rng.choice(self.split.train, min(config.windows, len(self.split.train)), replace=False)
        count, o, a = len(starts), self.data.spec.observation_size, self.data.spec.action_size
        gain = np.where(rng.random(count) < config.open_loop, 0.0, rng.uniform(*config.gain, count)).astype(
            np.float32
        )
        clone = (np.arange(count) // CHUNK) % behavior.config.clones  # one clone a chunk
        shapes = {
            "states": (count, length + 1, o),
            "actions": (count, length, a),
            "disagreement": (count, length, o),
            "alive": (count, length),
        }
        marker = self.folder / "anchors.json"
        done = json.loads(marker.read_text())["chunks"] if marker.exists() else 0
        if not done and self.peers.main:
            for name, shape in shapes.items():
                open_memmap(self.folder / f"anchor_{name}.npy", "w+", np.float32, shape)
        self.peers.wait()
        bank = {name: open_memmap(self.folder / f"anchor_{name}.npy", "r+") for name in shapes}
        chunks = -(-count // CHUNK)
        with progress_bar("rollouts", chunks, self.progress) as advance:
            advance(done)
            for first in range(done, chunks, SAVED):
                last = min(first + SAVED, chunks)
                for i in range(first + self.peers.rank, last, self.peers.count):
                    rows = slice(i * CHUNK, (i + 1) * CHUNK)
                    feedback, _, _ = feedback_windows(
                        self.batches,
                        self.models,
                        starts[rows],
                        length,
                        int(clone[rows.start]),
                        torch.from_numpy(gain[rows]).to(self.device),
                    )
                    rolled = closed_loop(feedback, self.models)
                    for name, array in bank.items():
                        array[rows] = getattr(rolled, name).cpu().numpy()
                    advance(min(self.peers.count, last - i))
                for array in bank.values():
                    array.flush()
                self.peers.wait()
                if self.peers.main:
                    marker.write_text(json.dumps({"chunks": last}))
        some = np.sort(rng.choice(count, min(8_000, count), replace=False))
        states, _, real, _ = self.batches.windows(starts[some], length)
        rolled = Rollout(*(torch.from_numpy(bank[name][some]).to(self.device) for name in Rollout._fields))
        scale = ErrorScale.fit(states[:, 1:] - rolled.states[:, 1:], rolled.disagreement, real)
        return {**bank, "starts": starts, "gain": gain, "clone": clone}, scale

    def fit_anchored_denoiser(self, bank: dict[str, np.ndarray], scale: ErrorScale) -> dict[str, Any]:
        """D_θ on scaled distances from the training rollouts."""
        training, model = self._own(self.preset.denoiser_training), self.models.denoiser
        config = self.preset.anchors
        assert config is not None
        by_clone = [np.flatnonzero(bank["clone"] == j) for j in np.unique(bank["clone"])]

        def loss(generator: torch.Generator) -> Tensor:
            rows_of = by_clone[int(torch.randint(len(by_clone), (), generator=generator))]
            rows = rows_of[torch.randint(len(rows_of), (training.batch,), generator=generator).numpy()]
            feedback, real, alive = feedback_windows(
                self.batches,
                self.models,
                bank["starts"][rows],
                self.preset.horizon,
                int(bank["clone"][rows[0]]),
                torch.from_numpy(bank["gain"][rows]).to(self.device),
            )
            rolled = Rollout(
                *(torch.from_numpy(bank[name][rows]).to(self.device) for name in Rollout._fields)
            )
            given = training_condition(feedback, rolled, scale, config.relabelled, config.jitter, generator)
            if torch.rand((), generator=generator) < config.refined:
                given = refined_condition(feedback, given, model)
            assert given.anchor is not None and given.scale is not None
            truth = torch.cat([feedback.states[:, 1:], alive[..., None]], -1)
            target = ((truth - given.anchor) / given.scale).clamp(-20, 20)
            # After an end the state matters little, but that it has ended is known.
            known = torch.maximum(real, 1 - alive)[..., None]
            weight = (real + config.after_end * (1 - real) * (1 - alive))[..., None].expand_as(
                feedback.states[:, 1:]
            )
            return model.loss(
                target, given, torch.cat([weight, 2 * known], -1) * given.valid[..., None], generator
            )

        return train("denoiser", model, loss, training, seed=self.seed, **self._files("denoiser"))

    def fit_free_denoiser(self) -> dict[str, Any]:
        """D_θ on the states themselves, windows by Eq. 2 (the paper's form)."""
        training, model = self._own(self.preset.denoiser_training), self.models.denoiser
        length = self.preset.horizon
        starts = np.intersect1d(window_starts(self.data, length, through_termination=False), self.split.train)

        def loss(generator: torch.Generator) -> Tensor:
            rows = starts[torch.randint(len(starts), (training.batch,), generator=generator).numpy()]
            states, actions, _, _ = self.batches.windows(rows, length, pad="zero")
            ones = torch.ones(len(rows), length, device=self.device)
            return model.loss(
                states[:, 1:], Condition(states[:, 0], actions, ones), ones[..., None], generator
            )

        return train("denoiser", model, loss, training, seed=self.seed, **self._files("denoiser"))

    def _own(self, config: TrainingConfig) -> TrainingConfig:
        """The same with this process's share of each batch."""
        return dataclasses.replace(config, batch=self.peers.share(config.batch))

    def _files(self, stage: str) -> dict[str, Any]:
        return {"checkpoint": self.folder / f"{stage}.pt", "progress": self.progress, "log": self.log}


def tensorboard_log(folder: str | Path | None) -> Callable[[str, float, int], None] | None:
    """TensorBoard's ``add_scalar`` for a folder.

    Raises:
        DyDiffError: without TensorBoard.
    """
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DyDiffError("TensorBoard is not installed.", "pip install 'dydiff-env[report]'") from error
    return SummaryWriter(str(folder), flush_secs=5).add_scalar
