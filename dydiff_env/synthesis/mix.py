"""Real and synthetic episodes in one Minari dataset, each step saying where it is from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dydiff_env.data.dataset import Dataset, check_same_spaces
from dydiff_env.data.episode_files import reserve
from dydiff_env.data.minari_io import Source, load_dataset, resolve_dataset
from dydiff_env.data.minari_writer import MinariWriter
from dydiff_env.data.registry import Destination, registered_folder
from dydiff_env.errors import DyDiffError
from dydiff_env.lock import sole_writer
from dydiff_env.publish import DATASET, check_free, publish


def mix(
    real: Sequence[Source],
    synthetic: Sequence[Source],
    out: str | Path,
    *,
    overwrite: bool = False,
    dataset_id: str | None = None,
) -> dict[str, Any]:
    """Write all episodes of several datasets into the Minari folder `out`, real ones first.

    Every episode carries `infos["source"]`, (L+1,) int8: the number of its dataset, counted over `real` and then
    `synthetic`; the metadata's provenance names them.

    Args:
        real: logged datasets, each as `load_dataset` takes it; the first gives spaces, environment and reference scores.
        synthetic: exported datasets.
        out: the folder to make.
        overwrite: replace an existing `out`.
        dataset_id: also register it under this id.

    Returns:
        trajectories, transitions, and for each source its id, kind and share of the transitions.

    Raises:
        DyDiffError: where a dataset is missing, or their spaces differ by more than float32 and float64.
    """
    destination = Destination(dataset_id, Path(out), overwrite)
    out, name = destination.resolve()
    check_free(out, overwrite, DATASET)
    kinds = ["real"] * len(real) + ["synthetic"] * len(synthetic)
    sources = (*real, *synthetic)
    folders = {resolve_dataset(source).resolve() for source in sources if not isinstance(source, Dataset)}
    if folders & {out.resolve(), out.resolve() / "data"}:
        raise DyDiffError(f"{out} is one of the datasets to mix.", "Choose another --out.", usage=True)
    if dataset_id is not None and registered_folder(dataset_id).resolve() in folders:
        raise DyDiffError(f"{dataset_id} is one of the datasets to mix.", "Choose another --dataset-id.", usage=True)
    datasets = [load_dataset(source) for source in sources]
    if not datasets:
        raise DyDiffError("There is nothing to mix.", "Give --real and --synthetic datasets.", usage=True)
    for dataset in datasets[1:]:
        check_same_spaces(datasets[0].spec, dataset.spec)
    total = sum(dataset.transitions for dataset in datasets)
    named = [
        {
            "dataset_id": dataset.spec.dataset_id,
            "fingerprint": dataset.spec.fingerprint,
            "kind": kind,
            "share": dataset.transitions / total,
        }
        for dataset, kind in zip(datasets, kinds, strict=True)
    ]
    spec = replace(datasets[0].spec, dataset_id=name)
    with sole_writer(out):
        staged = out.with_name(out.name + ".mixed.partial")
        shutil.rmtree(staged, ignore_errors=True)
        try:
            with MinariWriter(staged, spec, overwrite=True) as writer:
                for dataset in datasets:
                    for block in dataset.blocks():
                        writer.append(block)
                writer.publish(
                    description="Real and synthetic episodes; infos/source tells them apart.",
                    provenance={"kind": "mix", "sources": named},
                )
            _note_sources(staged / "main_data.hdf5", [len(dataset) for dataset in datasets], total)
            publish(staged, out)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    destination.register()
    return {"trajectories": writer.trajectories, "transitions": total, "sources": named, "out": str(out)}


def _note_sources(path: Path, counts: Sequence[int], transitions: int) -> None:
    """Give each episode its `infos/source`, a number a row of its observations."""
    reserve(path, path.stat().st_size, 4096 * sum(counts) + transitions)  # HDF5 does not survive a full disk
    with h5py.File(path, "r+") as file:
        for episode, source in enumerate(np.repeat(np.arange(len(counts)), counts)):
            group = file[f"episode_{episode}"]
            steps = int(group.attrs["total_steps"])
            group.create_dataset("infos/source", data=np.full(steps + 1, source, np.int8))
