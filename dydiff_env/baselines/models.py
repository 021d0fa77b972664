"""The baselines by name, and where they lie: ``NAME.safetensors`` and ``NAME.json`` in a world's folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from dydiff_env.baselines import mtdiff, synther
from dydiff_env.baselines.mtdiff import MTDiff, MTDiffConfig
from dydiff_env.baselines.synther import SynthER, SynthERConfig
from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.errors import DyDiffError, unknown
from dydiff_env.publish import replacing
from dydiff_env.world.sampler import SamplerConfig
from dydiff_env.world.settings import check_settings
from dydiff_env.world.storage import load_into, save_tensors
from dydiff_env.world.training import TrainingConfig
from dydiff_env.world.transformer import TransformerConfig

Baseline = SynthER | MTDiff
BASELINES = ("synther", "mtdiff-s")
SCHEMA = 1


def build(name: str, spec: DatasetSpec, config: dict[str, Any], horizon: int) -> Baseline:
    """The untrained baseline that a configuration (as plain values) describes."""
    parts = {"training": TrainingConfig, "sampler": SamplerConfig, "network": TransformerConfig}
    fields = {key: parts[key](**value) if key in parts else value for key, value in config.items()}
    if name == "synther":
        return SynthER(spec, SynthERConfig(**fields))
    return MTDiff(spec, MTDiffConfig(**fields), horizon)


def preset_config(name: str, preset: str) -> dict[str, Any]:
    """The configuration of baseline ``name`` under a preset, as plain values.

    Raises:
        DyDiffError: for an unknown preset.
    """
    presets: dict[str, Any] = synther.PRESETS if name == "synther" else mtdiff.PRESETS
    if preset not in presets:
        raise unknown("preset", preset, presets)
    return dataclasses.asdict(presets[preset])


def save(world: Path, name: str, model: Baseline, record: dict[str, Any]) -> None:
    """Put a trained baseline into a world's folder; its JSON comes last and says that it is whole."""
    weights, document = world / f"{name}.safetensors", world / f"{name}.json"
    document.unlink(missing_ok=True)
    with replacing(weights) as partial:
        save_tensors(model.state_dict(), partial)
    facts = {
        "schema": SCHEMA,
        "config": dataclasses.asdict(model.config),
        "horizon": getattr(model, "horizon", 1),
    }
    with replacing(document) as partial:
        partial.write_text(json.dumps({**facts, "record": record}, indent=1))


def load(world: Path, name: str, spec: DatasetSpec, device: str = "cpu") -> Baseline:
    """Read a baseline that :func:`save` wrote. Reads JSON and safetensors only: no code runs.

    Raises:
        DyDiffError: where the world has none, or its files are damaged.
    """
    document = world / f"{name}.json"
    if not document.is_file():
        raise DyDiffError(
            f"The world {world} has no {name} model.",
            f"Train it with: dydiff-env fit --dataset ID --out {world} --models {name}.",
            usage=True,
        )
    try:
        facts = json.loads(document.read_text())
        if facts["schema"] != SCHEMA:
            raise ValueError(f"schema {facts['schema']}, this version reads {SCHEMA}")
        tensors = load_file(world / f"{name}.safetensors")
        if not all(bool(value.isfinite().all()) for value in tensors.values()):
            raise ValueError("a number that is not finite")
        model = load_into(lambda: build(name, spec, facts["config"], facts["horizon"]), tensors)
        check_settings(model.config, name)
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else ""
        raise DyDiffError(
            f"The {name} model in {world} cannot be read ({type(error).__name__}: {reason}).",
            f"Train it again with: dydiff-env fit --dataset ID --out {world} --models {name} --overwrite.",
        ) from error
    return model.to(device).eval().requires_grad_(False)
