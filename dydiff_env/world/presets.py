"""What a world is made of: every size and setting, in one value, and the four that have a name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from dydiff_env.errors import DyDiffError, unknown
from dydiff_env.world.behavior import BehaviorConfig
from dydiff_env.world.denoiser import DenoiserConfig
from dydiff_env.world.dynamics import DynamicsConfig
from dydiff_env.world.refine import RefinementConfig
from dydiff_env.world.reward import RewardConfig
from dydiff_env.world.sampler import SamplerConfig
from dydiff_env.world.settings import check_settings
from dydiff_env.world.termination import TerminationConfig
from dydiff_env.world.training import TrainingConfig
from dydiff_env.world.transformer import TransformerConfig
from dydiff_env.world.unet import UNetConfig


@dataclass(frozen=True)
class AnchorConfig:
    """How the training rollouts are made.

    Args:
        windows: how many; they are rolled out once and kept on disk.
        open_loop: share with g = 0; the others draw g uniformly from ``gain``.
        gain: bounds of g.
        relabelled: share of the training windows with the actions of an imitated refined rollout instead of the
            anchor's own.
        jitter: standard deviation of the noise of such a rollout, in units of the expected error.
        refined: share of the batches in which half the windows have the actions of a rollout that the denoiser
            itself has refined.
        after_end: weight in the loss of the steps after a termination, where the truth stands still.
    """

    windows: int = 60_000
    open_loop: float = 0.25
    gain: tuple[float, float] = (0.5, 1.5)
    relabelled: float = 0.4
    jitter: float = 0.3
    refined: float = 0.5
    after_end: float = 0.2


@dataclass(frozen=True)
class Preset:
    """All settings of a world.

    Args:
        name: of the preset.
        horizon: L, steps of a window.
        dynamics … refinement: one configuration a part; ``anchors`` is None for a denoiser that works free of a rollout.
    """

    name: str = "fast"
    horizon: int = 100
    dynamics: DynamicsConfig = field(
        default_factory=lambda: DynamicsConfig(
            members=7, elites=4, beta=0.25, frequencies=None, hard=0.5, unroll=4, memory=None
        )
    )
    dynamics_training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=12_000,
            batch=512,
            learning_rate=8e-3,
            optimizer="soap",
            beta2=0.95,
            weight_decay=1e-5,
            evaluate_every=250,
        )
    )
    reward: RewardConfig = field(default_factory=lambda: RewardConfig(next_state=None))
    reward_training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=12_000, batch=512, learning_rate=2e-3, evaluate_every=1_000
        )
    )
    termination: TerminationConfig = field(default_factory=lambda: TerminationConfig(drawn=None))
    termination_training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=16_000, batch=512, learning_rate=3e-3, evaluate_every=1_000
        )
    )
    behavior: BehaviorConfig | None = field(default_factory=BehaviorConfig)
    behavior_training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=2_000, batch=512, learning_rate=1e-3, evaluate_every=500)
    )
    anchors: AnchorConfig | None = field(default_factory=AnchorConfig)
    network: TransformerConfig | UNetConfig = field(default_factory=TransformerConfig)
    denoiser: DenoiserConfig = field(
        default_factory=lambda: DenoiserConfig(
            sigma_data=1.0, log_sigma_mean=-0.4, log_sigma_std=1.4, mean_share=0.7
        )
    )
    denoiser_training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=5_000,
            batch=64,
            learning_rate=5e-3,
            optimizer="soap",
            beta2=0.99,
            ema=0.999,
            evaluate_every=200,
            clip=1.0,
        )
    )
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(steps=1))
    refinement: RefinementConfig = field(default_factory=RefinementConfig)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            **dataclasses.asdict(self),
            "network_kind": "unet" if isinstance(self.network, UNetConfig) else "transformer",
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Preset:
        """The preset that ``to_dict`` wrote.

        Raises:
            DyDiffError: for a setting that no model could have been made with.
        """
        values = dict(values)
        kind = values.pop("network_kind")
        parts = {
            "dynamics": DynamicsConfig,
            "reward": RewardConfig,
            "termination": TerminationConfig,
            "behavior": BehaviorConfig,
            "anchors": AnchorConfig,
            "denoiser": DenoiserConfig,
            "sampler": SamplerConfig,
            "refinement": RefinementConfig,
            "network": UNetConfig if kind == "unet" else TransformerConfig,
        }
        parts |= {name: TrainingConfig for name in values if name.endswith("_training")}

        def build(name: str, value: Any) -> Any:
            if name not in parts or value is None:
                return value
            return parts[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})

        preset = Preset(**{name: build(name, value) for name, value in values.items()})
        return check_preset(preset)


FAST = Preset()
"""The default: a causal transformer of 1.6 M parameters that corrects the single-step rollout in one call."""

QUICK = dataclasses.replace(
    FAST,
    name="quick",
    dynamics=dataclasses.replace(FAST.dynamics, members=4),
    dynamics_training=dataclasses.replace(FAST.dynamics_training, steps=4_000),
    reward_training=dataclasses.replace(FAST.reward_training, steps=4_000),
    termination_training=dataclasses.replace(FAST.termination_training, steps=6_000),
    behavior_training=dataclasses.replace(FAST.behavior_training, steps=1_000),
    anchors=AnchorConfig(windows=20_000),
    denoiser_training=dataclasses.replace(FAST.denoiser_training, steps=1_200, ema=0.995),
)
"""The default with four members, and all parts trained for half as long or less."""

PAPER = Preset(
    name="paper",
    dynamics=DynamicsConfig(members=7, elites=5),
    reward=RewardConfig(),
    termination=TerminationConfig(),
    dynamics_training=TrainingConfig(
        steps=200_000, batch=256, learning_rate=1e-4, schedule="constant", evaluate_every=1_000, patience=7
    ),
    reward_training=TrainingConfig(
        steps=200_000, batch=256, learning_rate=1e-4, schedule="constant", evaluate_every=1_000, patience=7
    ),
    behavior=None,
    anchors=None,
    network=UNetConfig(),
    denoiser=DenoiserConfig(),
    denoiser_training=TrainingConfig(
        steps=100_000, batch=64, learning_rate=2e-4, ema=0.995, evaluate_every=100, clip=1.0
    ),
    sampler=SamplerConfig(),
    refinement=RefinementConfig(iterations=2, update="replace", trust=1.0, nudge=1.0),
)
"""The paper's: U-Net of 58.75 M parameters, 67 calls a sample, M = 2, MBPO's ensemble."""

TINY = Preset(
    name="tiny",
    horizon=32,
    dynamics=DynamicsConfig(
        members=3, elites=2, width=64, depth=2, beta=0.25, frequencies=(0.5, 1.0), hard=0.5, unroll=4
    ),
    dynamics_training=TrainingConfig(
        steps=600, learning_rate=8e-3, optimizer="soap", beta2=0.95, evaluate_every=100
    ),
    reward=RewardConfig(width=64),
    reward_training=TrainingConfig(steps=400, evaluate_every=200),
    termination=TerminationConfig(width=64, depth=2),
    termination_training=TrainingConfig(steps=400, evaluate_every=200),
    behavior=BehaviorConfig(clones=2, width=64),
    behavior_training=TrainingConfig(steps=200, evaluate_every=100),
    anchors=AnchorConfig(windows=2_000),
    network=TransformerConfig(width=48, blocks=2, heads=2),
    denoiser_training=TrainingConfig(
        steps=300, batch=64, learning_rate=5e-3, optimizer="soap", beta2=0.99, ema=0.98, evaluate_every=100, clip=1.0
    ),
)
"""For tests and first looks: seconds."""

PRESETS = {preset.name: preset for preset in (FAST, QUICK, PAPER, TINY)}


def get_preset(preset: str | Preset) -> Preset:
    """The preset of that name, or the preset itself.

    Raises:
        DyDiffError: for an unknown name, or settings that no model can be made with.
    """
    if isinstance(preset, Preset):
        return check_preset(preset)
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    return PRESETS[preset]


def check_preset(preset: Preset) -> Preset:
    """The preset itself, where a world can be made with it.

    Raises:
        DyDiffError: naming what is wrong.
    """
    check_settings(preset, "preset")
    corrects = isinstance(preset.network, TransformerConfig) and preset.network.anchored
    if len({corrects, preset.anchors is not None, preset.behavior is not None}) > 1:
        raise DyDiffError(
            "preset.network.anchored, preset.anchors and preset.behavior go together.",
            "Set all three for a denoiser that corrects the single-step rollout; False and None for one that works free of it.",
        )
    return preset
