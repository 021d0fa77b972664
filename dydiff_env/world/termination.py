"""When an episode ends for good: learned from the data, in place of a rule written by hand for every task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dydiff_env.world.networks import perceptron


@dataclass(frozen=True)
class TerminationConfig:
    """Size of the termination model.

    Args:
        width: units of a hidden layer.
        depth: hidden layers.
        lasso: weight of the group lasso on the inputs: a rule of termination reads few of a state's numbers, and with some
            hundred ends to learn from, the others would be learned by heart.
        drawn: whether ends are drawn by how likely they are in the states that the single-step model predicts; False for a border
            between states, which is the paper's. None: `fit` draws where the log's ends lie behind no border
            (:mod:`dydiff_env.world.fit_ends`).
    """

    width: int = 128
    depth: int = 3
    lasso: float = 1e-2
    drawn: bool | None = False


class TerminationModel(nn.Module):
    """Whether a next state is terminal.

    It reads the next state alone: Gymnasium's locomotion tasks end in unhealthy *states*, and a state-based rule carries over to
    states that the denoiser moved, whatever action led there.

    Trained on batches of which two fifths are terminal states, two fifths those shortly before and one fifth any (terminals are a
    fraction of a per cent of the data); the threshold that undoes this balance is then the one with the best F1 at the true share of
    terminals. ``threshold`` is +inf where the data has no terminal state: such a world never terminates.

    What an observation does not tell, a crash into ground that it does not show, lies behind no border. ``sharpness`` is +inf for a
    border; where it is finite, a state is terminal with probability σ(sharpness · (log-odds − threshold)).

    ``rule`` is an exact rule (normalised next states (…, O) to bool (…)) that takes the network's place, see
    :meth:`dydiff_env.World.use_termination`.
    """

    threshold: Tensor
    sharpness: Tensor

    def __init__(self, observation_size: int, config: TerminationConfig) -> None:
        super().__init__()
        self.config = config
        self.network = perceptron(observation_size, 1, config.width, config.depth)
        self.register_buffer("threshold", torch.tensor(torch.inf))
        self.register_buffer("sharpness", torch.tensor(torch.inf))
        self.rule: Callable[[Tensor], Tensor] | None = None

    def forward(self, next_states: Tensor) -> Tensor:
        """Log-odds (…) that the normalised next states (…, O) are terminal, under balanced classes."""
        return self.network(next_states).squeeze(-1)

    @torch.no_grad()
    def terminal(self, next_states: Tensor) -> Tensor:
        """Bool (…): are the normalised next states (…, O) terminal?"""
        if self.rule is not None:
            return self.rule(next_states)
        if torch.isinf(self.threshold):
            return torch.zeros(next_states.shape[:-1], dtype=torch.bool, device=next_states.device)
        return self(next_states) > self.threshold

    def outlived(self, next_states: Tensor) -> Tensor:
        """How likely (…) the normalised next states (…, O) are not terminal: 1 or 0 where there is a border."""
        if self.rule is not None or torch.isinf(self.sharpness) or torch.isinf(self.threshold):
            return 1 - self.terminal(next_states).float()
        return torch.sigmoid(self.sharpness * (self.threshold - self(next_states)))

    def loss(self, next_states: Tensor, terminal: Tensor) -> Tensor:
        """Cross-entropy for next states (B, O) and float labels (B,), and the lasso on the inputs' weights."""
        lasso = self.config.lasso * self.network[0].weight.norm(dim=0).sum()  # type: ignore[operator]
        return F.binary_cross_entropy_with_logits(self(next_states), terminal) + lasso

    @torch.no_grad()
    def calibrate(self, next_states: Tensor, terminal: Tensor, weight: float = 1.0) -> dict[str, float]:
        """Set the threshold by the best F1, and return precision, recall and F1 there.

        Args:
            next_states: (B, O), normalised.
            terminal: (B,) 0 or 1.
            weight: how many ordinary states each of those given stands for.
        """
        scores = torch.cat([self(rows) for rows in next_states.split(8192)])
        order = scores.argsort(descending=True)
        true = terminal.bool()[order]
        hits, misses = true.cumsum(0).double(), (~true).cumsum(0) * weight
        precision, recall = hits / (hits + misses), hits / hits[-1].clamp(min=1)
        f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-9)
        best = int(f1.argmax())
        lower = scores[order[best + 1]] if best + 1 < len(order) else scores.min() - 1  # 1 below where all are called terminal
        self.threshold.copy_((scores[order[best]] + lower) / 2)
        return {"precision": float(precision[best]), "recall": float(recall[best]), "f1": float(f1[best])}

    def draw_ends(self, next_states: Tensor, terminal: Tensor, weight: float = 1.0) -> None:
        """Set ``threshold`` and ``sharpness`` by logistic regression on the log-odds, so that probabilities are true.

        Args:
            next_states, terminal, weight: as for :meth:`calibrate`.
        """
        with torch.no_grad():
            scores = torch.cat([self(rows) for rows in next_states.split(8192)]).double().cpu()
        terminal = terminal.cpu()
        times = torch.where(terminal > 0, 1.0, weight).double()
        middle, scale = scores.mean(), scores.std().clamp(min=1e-6)
        line = torch.tensor([1.0, float(terminal.double().mean().clamp(1e-6, 0.5).logit())], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = line[0] * (scores - middle) / scale + line[1]
            loss = F.binary_cross_entropy_with_logits(logits, terminal.double(), times, reduction="sum") / times.sum()
            loss = loss + 1e-6 * line[0].square()  # where all ends can be told, no slope would be steep enough
            loss.backward()
            return loss

        optimizer.step(closure)
        slope, offset = line.detach()
        self.sharpness.copy_((slope / scale).clamp(min=1e-3))
        self.threshold.copy_(middle - offset / slope.clamp(min=1e-3 * scale) * scale)
