"""Training the denoiser: the training rollouts it corrects, and D_θ itself, anchored or free as in the paper."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from dydiff_env.data.episode_files import reserve
from dydiff_env.data.windows import window_starts
from dydiff_env.products import half_products
from dydiff_env.progress import progress_bar
from dydiff_env.publish import replacing
from dydiff_env.world.denoiser import Condition
from dydiff_env.world.error_scale import ErrorScale
from dydiff_env.world.feedback import closed_loop, feedback_windows, refined_condition, training_condition
from dydiff_env.world.fitting import Fitting
from dydiff_env.world.memory import remembered
from dydiff_env.world.rollout import Rollout
from dydiff_env.world.training import train

SCALED = 20_000_000  # numbers that the error scale is fitted to, so that memory does not grow with the observation
STORED = ("states", "actions", "disagreement", "alive")  # of a rollout; for wide observations the states are nearly all of it
CHUNK = 500  # windows rolled out at a time,
SAVED = 20  # and chunks after which a killed fit goes on


def roll_out_anchors(fitting: Fitting) -> tuple[dict[str, np.ndarray], ErrorScale]:
    """The training rollouts of the policies π_w, kept on disk, and the expected error fitted to them."""
    config, behavior, length = fitting.preset.anchors, fitting.models.behavior, fitting.preset.horizon
    assert config is not None and behavior is not None
    rng = np.random.default_rng(fitting.seed + 1)
    starts = rng.choice(fitting.split.train, min(config.windows, len(fitting.split.train)), replace=False)
    count, o, a = len(starts), fitting.data.spec.observation_size, fitting.data.spec.action_size
    gain = np.where(rng.random(count) < config.open_loop, 0.0, rng.uniform(*config.gain, count)).astype(
        np.float32
    )
    clone = (np.arange(count) // CHUNK) % behavior.config.clones  # one clone a chunk
    sizes = ((count, length + 1, o), (count, length, a), (count, length), (count, length))
    shapes = dict(zip(STORED, sizes, strict=True))
    marker = fitting.folder / "rollouts.json"
    done = json.loads(marker.read_text())["chunks"] if marker.exists() else 0
    if not done and fitting.peers.main:
        for name, shape in shapes.items():
            path = fitting.folder / f"rollout_{name}.npy"
            open_memmap(path, "w+", np.float32, shape)
            reserve(path, 0, path.stat().st_size)  # now: what is written through memory onto a full disk kills the process
    fitting.peers.wait()
    bank = {name: open_memmap(fitting.folder / f"rollout_{name}.npy", "r+") for name in shapes}
    chunks = -(-count // CHUNK)
    with progress_bar("rollouts", chunks, fitting.progress) as advance:
        advance(done)
        for first in range(done, chunks, SAVED):
            last = min(first + SAVED, chunks)
            for i in range(first + fitting.peers.rank, last, fitting.peers.count):
                rows = slice(i * CHUNK, (i + 1) * CHUNK)
                feedback, _, _ = feedback_windows(
                    fitting.batches,
                    fitting.models,
                    starts[rows],
                    length,
                    int(clone[rows.start]),
                    torch.from_numpy(gain[rows]).to(fitting.device),
                )
                drawn = torch.Generator().manual_seed(i)
                recalled = remembered(fitting.models.dynamics, fitting.batches, starts[rows], drawn)
                rolled = closed_loop(feedback, fitting.models, recalled)
                for name, array in bank.items():
                    array[rows] = getattr(rolled, name).cpu().numpy()
                advance(min(fitting.peers.count, last - i))
            for array in bank.values():
                array.flush()
            fitting.peers.wait()
            if fitting.peers.main:
                with replacing(marker) as partial:
                    partial.write_text(json.dumps({"chunks": last}))
    enough = max(500, SCALED // (length * o))
    some = np.sort(rng.choice(count, min(8_000, enough, count), replace=False))
    states, _, real, _ = fitting.batches.windows(starts[some], length)
    rolled = _stored(bank, some, fitting)
    scale = ErrorScale.fit(states[:, 1:] - rolled.states[:, 1:], rolled.disagreement, real)
    return {**bank, "starts": starts, "gain": gain, "clone": clone}, scale


def _stored(bank: Mapping[str, np.ndarray], rows: np.ndarray, fitting: Fitting) -> Rollout:
    parts = {name: torch.from_numpy(bank[name][rows]).to(fitting.device) for name in STORED}
    return Rollout(**parts)


def fit_anchored_denoiser(fitting: Fitting, bank: dict[str, np.ndarray], scale: ErrorScale) -> dict[str, Any]:
    """D_θ on scaled distances from the training rollouts."""
    training, model = fitting.share(fitting.preset.denoiser_training), fitting.models.denoiser
    config = fitting.preset.anchors
    assert config is not None
    longest = int(fitting.data.lengths.max())
    by_clone = [np.flatnonzero(bank["clone"] == j) for j in np.unique(bank["clone"])]

    def loss(generator: torch.Generator, _: int) -> Tensor:
        rows_of = by_clone[int(torch.randint(len(by_clone), (), generator=generator))]
        rows = rows_of[torch.randint(len(rows_of), (training.batch,), generator=generator).numpy()]
        feedback, real, alive = feedback_windows(
            fitting.batches,
            fitting.models,
            bank["starts"][rows],
            fitting.preset.horizon,
            int(bank["clone"][rows[0]]),
            torch.from_numpy(bank["gain"][rows]).to(fitting.device),
        )
        rolled = _stored(bank, rows, fitting)
        given = training_condition(feedback, rolled, scale, config.relabelled, config.jitter, generator)
        if torch.rand((), generator=generator) < config.refined:
            given = refined_condition(feedback, given, model)
        assert given.anchor is not None and given.scale is not None
        truth = torch.cat([feedback.states[:, 1:], alive[..., None]], -1)
        target = ((truth - given.anchor) / given.scale).clamp(-20, 20)
        # After an end the state matters little, but that it has ended is known. It counts as long as an episode that goes on could
        # have been watched: else only ends would be known of late steps, and living on would seem less likely than it is.
        begun = bank["starts"][rows] - fitting.data.offsets[fitting.data.episode_of(bank["starts"][rows])]
        seen = torch.from_numpy(begun[:, None] + np.arange(fitting.preset.horizon) < longest).to(real)
        known = torch.maximum(real, (1 - alive) * seen)[..., None]
        weight = (real + config.after_end * (1 - real) * (1 - alive))[..., None].expand_as(
            feedback.states[:, 1:]
        )
        weight = torch.cat([weight, 2 * known], -1) * given.valid[..., None]
        with half_products(fitting.device):
            return model.loss(target, given, weight, generator)

    return train("denoiser", model, loss, training, seed=fitting.seed, **fitting.files("denoiser"))


def fit_free_denoiser(fitting: Fitting) -> dict[str, Any]:
    """D_θ on the states themselves, windows by Eq. 2 (the paper's form)."""
    training, model = fitting.share(fitting.preset.denoiser_training), fitting.models.denoiser
    length = fitting.preset.horizon
    starts = np.intersect1d(
        window_starts(fitting.data, length), fitting.split.train
    )

    def loss(generator: torch.Generator, step: int) -> Tensor:
        rows = starts[torch.randint(len(starts), (training.batch,), generator=generator).numpy()]
        states, actions, _, _ = fitting.batches.windows(rows, length, zeros=True)
        ones = torch.ones(len(rows), length, device=fitting.device)
        return model.loss(states[:, 1:], Condition(states[:, 0], actions, ones), ones[..., None], generator)

    return train("denoiser", model, loss, training, seed=fitting.seed, **fitting.files("denoiser"))
