"""Fit a world with some settings of a preset changed, for ablations; `closed_loop.py` then measures it.

python benchmarks/ablate.py DATASET --out WORLD --set dynamics.beta=0 --set dynamics_training.steps=6000
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import time
from pathlib import Path

import torch

from dydiff_env.world.fit import fit
from dydiff_env.world.presets import Preset, get_preset


def changed(preset: Preset, settings: list[str]) -> Preset:
    """The preset with ``part.field=value`` set; a value is a Python literal, or else a word."""
    for setting in settings:
        path, text = setting.split("=", 1)
        part, field = path.split(".")
        try:
            value = ast.literal_eval(text)
        except ValueError:
            value = text
        preset = dataclasses.replace(
            preset, **{part: dataclasses.replace(getattr(preset, part), **{field: value})}
        )
    return dataclasses.replace(preset, name=f"{preset.name} with {', '.join(settings)}" if settings else preset.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", action="append", default=[], metavar="PART.FIELD=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    began = time.monotonic()
    world = fit(arguments.dataset, preset=changed(get_preset(arguments.preset), arguments.set), out=arguments.out)
    seconds = {name: stage.get("seconds") for name, stage in world.record["training"].items()}
    print(json.dumps({"seconds": time.monotonic() - began, "stages": seconds, **world.record["fidelity"]}, indent=1))


if __name__ == "__main__":
    main()
