"""The one training loop: an optimizer, a schedule, held-out early stopping, EMA, and checkpoints that resume bit for bit."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dydiff_env.errors import DyDiffError
from dydiff_env.progress import progress_bar
from dydiff_env.publish import replacing
from dydiff_env.world.parallel import processes
from dydiff_env.world.soap import SOAP


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast a model is trained.

    Args:
        steps: gradient steps at most.
        batch: rows a step.
        learning_rate: its peak.
        schedule: "cosine" (with a warm-up of 2 %) or "constant".
        optimizer: "adamw" or "soap" (:mod:`dydiff_env.world.soap`).
        weight_decay: the optimizer's, decoupled.
        beta2: β₂, the memory of its mean squares.
        ema: decay of the averaged weights, 0 for none.
        clip: largest gradient norm.
        evaluate_every: steps between two looks at the held-out data, and of the dynamics at which examples are hard.
        patience: looks without a 1 % improvement of any member before training stops; 0 never stops early.
    """

    steps: int = 10_000
    batch: int = 256
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    beta2: float = 0.999
    ema: float = 0.0
    clip: float = 10.0
    evaluate_every: int = 500
    patience: int = 0


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The rate at a step: constant, or a short warm-up followed by half a cosine."""
    if config.schedule == "constant":
        return config.learning_rate
    warmup = max(1, config.steps // 50)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return (
        config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))
    )


def make_optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer that the settings name, of all of the module's parameters."""
    parameters, rate, decay = module.parameters(), config.learning_rate, config.weight_decay
    if config.optimizer == "soap":
        return SOAP(parameters, rate, (0.95, config.beta2), decay)
    return torch.optim.AdamW(parameters, rate, (0.9, config.beta2), weight_decay=decay, fused=True)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state at ``path``, or None where there is none. Never unpickles anything but tensors and plain values.

    Raises:
        DyDiffError: where the file cannot be read.
    """
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise DyDiffError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}).",
            "Delete it: training goes on from the stage before.",
        ) from error


def train(
    name: str,
    module: nn.Module,
    loss: Callable[[torch.Generator, int], Tensor],
    config: TrainingConfig,
    *,
    seed: int,
    holdout: Callable[[], Tensor] | None = None,
    keep_best: Callable[[nn.Module, nn.Module, Tensor], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
    progress: bool = False,
    log: Callable[[str, float, int], None] | None = None,
) -> dict[str, Any]:
    """Train ``module`` in place; in several processes (see parallel.py), on the mean of their gradients.

    Args:
        name: what the progress bar says.
        module: the model.
        loss: draws its own batch with the generator, is told how many steps are done, and returns a scalar.
        config: how.
        seed: of the generator handed to ``loss``.
        holdout: held-out losses, one a member (E,); the weights kept are the best seen, else the last (or their EMA).
        keep_best: ``keep_best(best, module, improved (E,))`` copies the members that improved; default: all or nothing.
        checkpoint: file to resume from and to write to.
        checkpoint_seconds: seconds between two checkpoints.
        progress: show a bar.
        log: ``log(tag, value, step)`` is told the curve as it grows (TensorBoard's ``add_scalar``).

    Returns:
        A record: steps done, seconds, those of a step at the start, the training curve, the held-out losses of the weights kept.
    """
    device = next(module.parameters()).device
    peers = processes(device)
    peers.equalize(module)
    generator = torch.Generator().manual_seed(seed)
    optimizer = make_optimizer(module, config)
    kept = copy.deepcopy(module).requires_grad_(False) if (holdout is not None or config.ema) else module
    state: dict[str, Any] = {"step": 0, "curve": [], "best": [], "stale": 0, "done": False, "seconds": 0.0}

    def snapshot() -> dict[str, Any]:
        return {
            **state,
            "module": module.state_dict(),
            "kept": kept.state_dict(),
            "optimizer": optimizer.state_dict(),
            "generator": generator.get_state(),
        }

    found = load_checkpoint(checkpoint) if checkpoint is not None else None
    if found is not None:
        try:
            module.load_state_dict(found.pop("module"))
            kept.load_state_dict(found.pop("kept"))
            optimizer.load_state_dict(found.pop("optimizer"))
            generator.set_state(found.pop("generator"))
        except (KeyError, RuntimeError, ValueError) as error:
            raise DyDiffError(
                f"The checkpoint {checkpoint} is another version's ({type(error).__name__}).",
                "Finish with that version, or delete the folder it lies in and begin anew.",
            ) from error
        state = found

    began, saved = time.monotonic() - state["seconds"], time.monotonic()
    running, ticks = None, list[float]()
    with progress_bar(name, config.steps, progress) as advance:
        advance(state["step"])
        while not state["done"] and state["step"] < config.steps:
            if len(ticks) < 16:
                ticks.append(time.monotonic())
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, state["step"])
            value = loss(peers.draws(generator), state["step"])
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            peers.average(p.grad for p in module.parameters() if p.grad is not None)
            nn.utils.clip_grad_norm_(module.parameters(), config.clip)
            optimizer.step()
            state["step"] += 1
            if config.ema and holdout is None:
                decay = min(config.ema, (1 + state["step"]) / (10 + state["step"]))  # a short memory at first
                with torch.no_grad():
                    torch._foreach_lerp_(list(kept.parameters()), list(module.parameters()), 1 - decay)
            running = value.detach() if running is None else running.lerp(value.detach(), 0.02)
            if state["step"] % config.evaluate_every == 0 or state["step"] == config.steps:
                assert running is not None
                peers.average([running])
                if not running.isfinite():  # before it is saved over what was learned so far
                    raise DyDiffError(f"The training of {name} has diverged: its loss is no number at step {state['step']}.",
                                      "Lower its learning rate, and begin anew (--overwrite).")
                state["curve"].append([state["step"], round(float(running), 6)])
                advance(0, note=f"loss {float(running):.4f}")
                if log is not None:
                    log(f"{name}/loss", float(running), state["step"])
                running = None
                if holdout is not None:
                    losses = holdout()
                    peers.average([losses])  # devices may round differently, and all must decide alike
                    _keep_best(state, module, kept, losses, keep_best)
                    if log is not None:
                        log(f"{name}/held out", float(losses.mean()), state["step"])
                    state["done"] = bool(config.patience) and state["stale"] >= config.patience
            advance(1)
            state["seconds"] = time.monotonic() - began
            # A resumed run restarts the running mean of the curve, never the weights: save only at its boundaries.
            due = peers.main and time.monotonic() - saved > checkpoint_seconds
            if checkpoint is not None and running is None and due:
                with replacing(checkpoint) as partial:
                    torch.save(snapshot(), partial)
                saved = time.monotonic()
    state["done"] = True
    if checkpoint is not None and peers.main:
        with replacing(checkpoint) as partial:
            torch.save(snapshot(), partial)
    if kept is not module:
        module.load_state_dict(kept.state_dict())
    module.to(device).eval()
    return {
        "steps": state["step"],
        "seconds": round(state["seconds"], 1),
        "step_seconds": (ticks[-1] - ticks[1]) / (len(ticks) - 2) if len(ticks) > 2 else 0.0,  # the first warms up
        "curve": state["curve"],
        "holdout": state["best"],
    }


@torch.no_grad()
def _keep_best(
    state: dict[str, Any],
    module: nn.Module,
    kept: nn.Module,
    losses: Tensor,
    keep: Callable[[nn.Module, nn.Module, Tensor], None] | None,
) -> None:
    """Copy what improved into ``kept`` and count the looks in which nothing improved by 1 %."""
    losses = losses.detach().reshape(-1).cpu()
    best = torch.tensor(state["best"]) if state["best"] else torch.full_like(losses, torch.inf)
    improved = losses < best
    if improved.any():
        if keep is None:
            kept.load_state_dict(module.state_dict())
        else:
            keep(kept, module, improved)
    state["stale"] = 0 if (losses < 0.99 * best).any() else state["stale"] + 1
    state["best"] = torch.where(improved, losses, best).tolist()  # a loss that is no number improves on nothing, and spoils nothing
