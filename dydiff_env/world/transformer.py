"""The compact denoiser network: a causal transformer over patches of steps, with adaptive layer norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dydiff_env.world.denoiser import Condition, noise_features
from dydiff_env.world.networks import Units, initial


@dataclass(frozen=True)
class TransformerConfig:
    """Size of the transformer.

    Args:
        width: of a token.
        blocks: attention blocks.
        heads: attention heads.
        patch: steps a token; a dream is causal from patch to patch.
        anchored: whether the single-step rollout is an input and the output a correction to it.
    """

    width: int = 128
    blocks: int = 5
    heads: int = 4
    patch: int = 4
    anchored: bool = True


def causal_attention(qkv: Tensor) -> Tensor:
    """Attention to tokens at or before one's own: (B, T, 3, H, W) to (B, T, H, W).

    Written out, because torch's fused kernel for CPUs takes 7 to 19 times as long inside :func:`dydiff_env.products.fast_products`.
    """
    batch, tokens, _, heads, width = qkv.shape
    q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, batch * heads, tokens, width)
    later = torch.full((tokens, tokens), -torch.inf, device=qkv.device).triu(1)
    weights = torch.baddbmm(later.expand(batch * heads, -1, -1), q, k.transpose(1, 2), alpha=width**-0.5).softmax(-1)
    return torch.bmm(weights, v).view(batch, heads, tokens, width).transpose(1, 2)


class Block(nn.Module):
    """Attention and perceptron, each shifted, scaled and gated by the noise level and s_0 (DiT's adaLN-zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Tokens (B, T, W) and an embedding (B, W) to tokens (B, T, W)."""
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(embedding)[:, None].chunk(6, -1)
        batch, tokens, width = x.shape
        qkv = self.qkv(torch.addcmul(shift, self.norm(x), 1 + scale))
        y = causal_attention(qkv.view(batch, tokens, 3, self.heads, -1)).reshape(batch, tokens, width)
        x = torch.addcmul(x, gate, self.project(y))
        y = self.down(F.gelu(self.up(torch.addcmul(shift2, self.norm(x), 1 + scale2))))
        return torch.addcmul(x, gate2, y)


class CausalTransformer(nn.Module):
    """F_θ: what it says of a step depends on that step's patch and the patches before it, and on nothing after.

    So a prefix can be dreamt alone and equals the same prefix of a longer dream.
    """

    def __init__(
        self, observation_size: int, action_size: int, horizon: int, config: TransformerConfig
    ) -> None:
        super().__init__()
        self.config = config
        size = observation_size + 1 if config.anchored else observation_size  # D
        step = size + action_size + 1
        if config.anchored:
            step += 2 * size + action_size
        self.tokens, self.units = -(-horizon // config.patch), Units(action_size)
        self.embed = nn.Linear(config.patch * step, config.width)
        place = (self.tokens, config.width)
        self.position = nn.Parameter(initial(place, lambda: 0.02 * torch.randn(place)))
        self.start = nn.Linear(observation_size, config.width)
        self.noise = nn.Sequential(
            nn.Linear(64, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.blocks))
        self.modulation = nn.Linear(config.width, 2 * config.width)
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.output = nn.Linear(config.width, config.patch * size)
        for layer in (self.modulation, self.output):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, c_in: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        """F_θ (B, L, D) for scaled noisy input (B, L, D); L may be shorter than the window it was trained for."""
        parts = [x, self.units(condition.actions), condition.valid[..., None]]
        if self.config.anchored:
            assert condition.anchor is not None and condition.scale is not None
            assert condition.anchor_actions is not None
            parts += [condition.anchor.clamp(-20, 20), condition.scale.log(), self.units(condition.anchor_actions)]
        steps = (
            torch.cat(parts, -1) * condition.valid[..., None]
        )  # (B, L, ·), zero where not valid, like padding
        batch, length, size = steps.shape
        patch = self.config.patch
        steps = F.pad(steps, (0, 0, 0, -length % patch))
        tokens = self.embed(steps.reshape(batch, -1, patch * size))
        start = self.start(condition.starts)
        h = tokens + self.position[: tokens.shape[1]] + start[:, None]
        embedding = F.silu(self.noise(noise_features(c_noise, 64)) + start)
        for block in self.blocks:
            h = block(h, embedding)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, -1)
        out = self.output(torch.addcmul(shift, self.norm(h), 1 + scale))
        return out.reshape(batch, -1, x.shape[-1])[:, :length]
