"""Training a baseline into the folder of a world."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dydiff_env.baselines.models import BASELINES, build, preset_config, save
from dydiff_env.data.goals import one_goal_each
from dydiff_env.data.minari_io import Source, load_dataset
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.errors import DyDiffError, unknown
from dydiff_env.lock import sole_writer
from dydiff_env.policies.draws import own_draws
from dydiff_env.world.batches import Batches
from dydiff_env.world.fit import claim, tensorboard_log
from dydiff_env.world.parallel import processes
from dydiff_env.world.training import train
from dydiff_env.world.world import World

WORLD = "world"
MEASURED = 100_000  # transitions that means and deviations are taken from


def parse_models(text: str) -> list[str]:
    """Names out of "world,synther" or "all", the world first.

    Raises:
        DyDiffError: for an unknown name.
    """
    known = (WORLD, *BASELINES)
    asked = set(known if text == "all" else (name.strip() for name in text.split(",")))
    for name in sorted(asked - set(known)):
        raise unknown("model", name, (*known, "all"))
    return [name for name in known if name in asked]


def fit_models(
    names: list[str],
    dataset: Source,
    out: str | Path,
    *,
    preset: str = "fast",
    seed: int = 0,
    device: str | torch.device = "cpu",
    overwrite: bool = False,
    progress: bool = False,
    tensorboard: str | Path | None = None,
) -> World:
    """Train a world, its baselines, or both; the arguments are those of :func:`fit_baseline`.

    Of several models, those that are there already, from the same dataset, preset and seed, are kept: a killed fit goes
    on when it is started again. With ``overwrite``, all are trained anew, but for those before one whose
    training was stopped.

    Returns:
        The world of the folder ``out``.
    """
    processes(device)
    data, folder = load_dataset(dataset), Path(out).expanduser()
    facts = {"fingerprint": data.spec.fingerprint, "preset": preset, "seed": seed}
    settings: dict[str, Any] = {
        "preset": preset,
        "seed": seed,
        "device": device,
        "progress": progress,
        "tensorboard": tensorboard,
    }
    for i, name in enumerate(names):
        begun = any(folder.with_name(f"{folder.name}.{later}.partial").exists() for later in names[i + 1 :])
        if len(names) > 1 and (begun or not overwrite) and _facts(folder, name, device) == facts:
            continue  # it is there: of an earlier call, or of this one, stopped at a later model
        if name == WORLD:
            World.fit(data, out=folder, overwrite=overwrite, **settings)
        else:
            fit_baseline(name, data, folder, overwrite=overwrite, **settings)
    return World.load(folder, device)


def _facts(folder: Path, name: str, device: str | torch.device) -> dict[str, Any] | None:
    """What the model of that name was made of, if there is one."""
    if not (folder / f"{name}.json").is_file():
        return None
    if name == WORLD:
        world = World.load(folder, device)
        record, preset = world.record, world.preset.name
    else:
        record = json.loads((folder / f"{name}.json").read_text())["record"]
        preset = record["preset"]
    return {"fingerprint": record["dataset"]["fingerprint"], "preset": preset, "seed": record["seed"]}


def fit_baseline(
    name: str,
    dataset: Source,
    world: str | Path,
    *,
    preset: str = "fast",
    seed: int = 0,
    device: str | torch.device = "cpu",
    overwrite: bool = False,
    progress: bool = False,
    tensorboard: str | Path | None = None,
) -> dict[str, Any]:
    """Train a baseline on a world's dataset and put it into the world's folder.

    Work goes on in ``WORLD.NAME.partial``: a killed fit, started again with the same arguments, continues.

    Args:
        name: synther or mtdiff-s.
        dataset: the dataset of the world: a Dataset, a Minari id, or a Minari folder.
        world: the world's folder.
        preset: fast, quick, tiny or paper.
        seed: of everything random.
        device: where to train.
        overwrite: replace the world's present baseline of that name.
        progress: show a bar.
        tensorboard: folder that the training curve is written to as it grows.

    Returns:
        The record: dataset, seed, parameters, training curve.

    Raises:
        DyDiffError: for an unknown name, another dataset than the world's, a baseline in the way, or a partial fit of
            other settings.
    """
    if name not in BASELINES:
        raise unknown("model", name, BASELINES)
    folder, data = Path(world).expanduser(), one_goal_each(load_dataset(dataset))
    if (folder / f"{name}.json").exists() and not overwrite:
        raise DyDiffError(f"{folder} has a {name} model.", "Replace it with --overwrite.", usage=True)
    peers = processes(device)  # before anything is put on a device: each process has its own
    home = World.load(folder, device)
    if home.spec.fingerprint != data.spec.fingerprint:
        raise DyDiffError(
            f"{folder} was made from {home.spec.dataset_id}, not from {data.spec.dataset_id}.",
            "Give the dataset of the world, or make another world.",
            usage=True,
        )
    config = preset_config(name, preset)
    partial = folder.with_name(f"{folder.name}.{name}.partial")
    with sole_writer(partial) if peers.main else nullcontext():
        claim(partial, peers, overwrite, dataset=data.spec.fingerprint, config=config, seed=seed)
        with own_draws(torch.device("cpu"), seed):  # initial weights
            model = build(name, data.spec, config, home.horizon).to(device)
        as_they_are = Normalizer(torch.zeros(data.spec.observation_size), torch.ones(data.spec.observation_size))
        batches = Batches(data, as_they_are.to(device) if name == "synther" else home.normalizer, device)
        some = torch.randint(
            data.transitions, (min(MEASURED, data.transitions),), generator=torch.Generator().manual_seed(seed)
        )
        model.measure(batches, some)
        training = model.config.training

        def loss(generator: torch.Generator, _: int) -> Tensor:
            rows = torch.randint(data.transitions, (peers.share(training.batch),), generator=generator)
            return model.loss(batches, rows, generator)

        done = train(
            name,
            model,
            loss,
            training,
            seed=seed,
            checkpoint=partial / "model.pt",
            progress=progress and peers.main,
            log=tensorboard_log(tensorboard if peers.main else None),
        )
        record = {
            "dataset": {"id": data.spec.dataset_id, "fingerprint": data.spec.fingerprint},
            "preset": preset,
            "seed": seed,
            "parameters": sum(p.numel() for p in model.parameters()),
            "training": done,
        }
        if peers.main:
            save(folder, name, model, record)
            shutil.rmtree(partial)
    peers.wait()
    return record
