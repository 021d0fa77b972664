"""What a world, a policy file or a dataset is and how it was made, told without running anything in it; for `inspect` and reports.

Torch, HDF5 and MuJoCo take a second to import: each function imports what it needs, and a world needs none of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dydiff_env.errors import DyDiffError


def world_document(path: Path) -> dict[str, Any]:
    """A world's own record, without its weights."""
    weights = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    try:
        document = json.loads((path / "world.json").read_text())
        return {"kind": "world", "path": str(path), "megabytes": round(weights / 1e6, 1), **document}
    except (OSError, ValueError, TypeError) as error:
        raise DyDiffError(f"{path / 'world.json'} cannot be read: {error}.", "Fit the world again.") from error


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


def dataset_document(source: str | Path) -> dict[str, Any]:
    """Counts, lengths, returns, spaces and provenance of a dataset."""
    import numpy as np

    from dydiff_env.data.minari_io import load_dataset, read_metadata, resolve_dataset
    from dydiff_env.evaluation.statistics import normalized_scores

    folder = resolve_dataset(source)
    dataset, metadata = load_dataset(folder), read_metadata(folder)
    spec, returns, lengths = dataset.spec, dataset.returns, dataset.lengths
    document: dict[str, Any] = {
        "kind": "dataset", "path": str(folder), "dataset_id": spec.dataset_id,
        "env": _environment(spec.env_spec),
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
    document |= {key: metadata[key] for key in ("author", "code_permalink", "minari_version") if metadata.get(key)}
    if (made := provenance(folder)) is not None:
        document["provenance"] = made
    return document


def provenance(folder: Path) -> dict[str, Any] | None:
    """How a dataset says it was made."""
    from dydiff_env.data.minari_io import read_metadata

    text = read_metadata(folder).get("dydiff_env")
    return json.loads(text) if isinstance(text, str) else None


def lines(document: dict[str, Any]) -> dict[str, Any]:
    """The same in lines: nested entries by their dotted names, spaces as sizes, long lists as their length."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        if key.endswith("_space"):
            found[key] = "Dict" if "Dict" in str(value)[:20] else json.loads(value)["shape"]
        elif key == "env_spec":
            found["env"] = _environment(value)
        elif isinstance(value, dict):
            found |= {f"{key}.{inner}": entry for inner, entry in lines(value).items()}
        elif isinstance(value, list) and (len(value) > 8 or any(isinstance(entry, list | dict) for entry in value)):
            found[key] = f"{len(value)} entries"
        else:
            found[key] = value
    return found


def _environment(text: str | None) -> str | None:
    """The id in an environment's specification, which may be damaged: what else a file holds can still be told."""
    try:
        return str(json.loads(text)["id"]) if text else None
    except (ValueError, TypeError, KeyError):
        return "unreadable"


def _is_plain(value: Any) -> bool:
    """Whether JSON can say it in a few lines."""
    try:
        return len(json.dumps(value)) < 4000
    except TypeError:
        return False
