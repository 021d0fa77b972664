"""`dydiff-env inspect`: what a world, a dataset or a policy file is, and how it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dydiff_env.cli.common import Debug, Json, console, emit, reporting
from dydiff_env.errors import DyDiffError


def inspect(
    path: Annotated[str, typer.Argument(help="A world, a dataset (folder or Minari id), or a policy file.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what something is and how it was made. Nothing in it is executed."""
    with reporting(debug):
        target = Path(path)
        if (target / "world.json").is_file():
            document = world_document(target)
        elif target.is_file():
            document = policy_document(target)
        else:
            document = dataset_document(path)
        if as_json:
            emit(document, True)
            return
        fidelity = document.get("record", {}).pop("fidelity", None)
        if fidelity:
            from dydiff_env.cli.fit import fidelity_table

            console.print(fidelity_table(fidelity))
        emit(for_people(document), False)


def world_document(path: Path) -> dict[str, Any]:
    """A world's own record, without its weights."""
    try:
        document = json.loads((path / "world.json").read_text())
    except (OSError, ValueError) as error:
        raise DyDiffError(f"{path / 'world.json'} cannot be read: {error}.", "Fit the world again.") from error
    weights = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    return {"kind": "world", "path": str(path), "megabytes": round(weights / 1e6, 1)} | document


def policy_document(path: Path) -> dict[str, Any]:
    """A policy file's format; for an agent of ours also how it was trained."""
    from dydiff_env.policies.agent import read_checkpoint
    from dydiff_env.policies.kinds import file_kind

    kind = file_kind(path)
    document: dict[str, Any] = {"kind": "policy", "format": kind, "path": str(path),
                                "megabytes": round(path.stat().st_size / 1e6, 2)}
    if kind == "agent":
        checkpoint = read_checkpoint(path)
        plain = {key: value for key, value in checkpoint.items()
                 if key not in ("state", "spec", "format") and _is_plain(value)}
        document |= plain | {"spec": json.loads(checkpoint["spec"])}
    return document


def dataset_document(source: str) -> dict[str, Any]:
    """Counts, lengths, returns, spaces and provenance of a dataset."""
    import numpy as np

    from dydiff_env.data.minari_io import load_dataset, read_metadata, resolve_dataset
    from dydiff_env.evaluation.statistics import normalized_scores

    folder = resolve_dataset(source)
    dataset, metadata = load_dataset(folder), read_metadata(folder)
    spec, returns, lengths = dataset.spec, dataset.returns, dataset.lengths
    document: dict[str, Any] = {
        "kind": "dataset", "path": str(folder), "dataset_id": spec.dataset_id,
        "env": json.loads(spec.env_spec)["id"] if spec.env_spec else None,
        "algorithm": metadata.get("algorithm_name"), "description": metadata.get("description"),
        "episodes": len(dataset), "transitions": dataset.transitions,
        "observation_size": spec.observation_size, "action_size": spec.action_size,
        "action_bounds": [float(spec.action_bounds[0].min()), float(spec.action_bounds[1].max())],
        "actions_outside": dataset.outside(),
        "length_mean": float(lengths.mean()), "length_min": int(lengths.min()), "length_max": int(lengths.max()),
        "terminated": float(dataset.terminations.mean()), "return_mean": float(returns.mean()),
        "return_quartiles": [float(value) for value in np.quantile(returns, [0, 0.25, 0.5, 0.75, 1])],
        "ref_min_score": spec.ref_min_score, "ref_max_score": spec.ref_max_score,
        "fingerprint": spec.fingerprint}
    if (scores := normalized_scores(returns, spec)) is not None:
        document["normalized_score_mean"] = float(scores.mean())
    if isinstance(metadata.get("dydiff_env"), str):
        document["provenance"] = json.loads(metadata["dydiff_env"])
    return document


def for_people(document: dict[str, Any]) -> dict[str, Any]:
    """The same in lines: nested entries by their dotted names, spaces as sizes, long lists as their length."""
    lines: dict[str, Any] = {}
    for key, value in document.items():
        if key.endswith("_space"):
            lines[key] = "Dict" if "Dict" in str(value)[:20] else json.loads(value)["shape"]
        elif key == "env_spec":
            lines["env"] = json.loads(value)["id"] if value else None
        elif key == "preset":
            lines |= {f"preset.{inner}": entry for inner, entry in value.items() if not isinstance(entry, dict)}
        elif isinstance(value, dict):
            lines |= {f"{key}.{inner}": entry for inner, entry in for_people(value).items()}
        elif isinstance(value, list) and (len(value) > 8 or any(isinstance(entry, list) for entry in value)):
            lines[key] = f"{len(value)} entries"
        else:
            lines[key] = value
    return lines


def _is_plain(value: Any) -> bool:
    """Whether JSON can say it in a few lines."""
    try:
        return len(json.dumps(value)) < 4000
    except TypeError:
        return False
