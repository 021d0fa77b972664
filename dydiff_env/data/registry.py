"""Where a dataset goes: a folder, an id under which Minari finds it, or both."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from minari.dataset.minari_dataset import DATASET_ID_RE

from dydiff_env.errors import DyDiffError
from dydiff_env.publish import check_name, publish


@dataclass(frozen=True)
class Destination:
    """Where a dataset goes.

    Args:
        dataset_id: the id to store, and under which Minari will find it.
        out: a folder of its own; with an id as well, the id gets a copy.
        overwrite: replace what is there.
    """

    dataset_id: str | None = None
    out: Path | None = None
    overwrite: bool = False

    def resolve(self) -> tuple[Path, str]:
        """The data folder and the id.

        Raises:
            DyDiffError: where neither is given, the folder's name is none, the id is malformed, or its copy has no place.
        """
        if self.out is not None:
            check_name(self.out)
            if self.dataset_id is not None:
                check_unused(self.dataset_id, self.overwrite)
            return self.out.expanduser(), check_dataset_id(self.dataset_id or dataset_id_for(self.out))
        if self.dataset_id is not None:
            return registered_folder(check_dataset_id(self.dataset_id)), self.dataset_id
        raise DyDiffError("Nothing says where the dataset goes.",
                          "Pass --dataset-id NAMESPACE/NAME-vK, or --out FOLDER.", usage=True)

    def register(self) -> None:
        """Once the folder is written: the copy for the id, where both were asked for."""
        if self.out is not None and self.dataset_id is not None:
            register(self.out.expanduser(), self.dataset_id, overwrite=self.overwrite)


def registry_root() -> Path:
    """Where Minari keeps registered datasets: ``$MINARI_DATASETS_PATH``, else ``~/.minari/datasets``."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def registered_folder(dataset_id: str) -> Path:
    """The data folder a Minari id stands for, whether it is there or not."""
    return registry_root() / dataset_id / "data"


def register(path: str | Path, dataset_id: str, *, overwrite: bool = False) -> Path:
    """Copy the Minari folder ``path`` to where ``minari.load_dataset(dataset_id)`` finds it.

    Raises:
        DyDiffError: where the id is malformed, or taken and ``overwrite`` is off.
    """
    target = check_unused(dataset_id, overwrite)
    partial = target.with_name("data.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(path, partial)
    except (shutil.Error, OSError) as error:  # the former is a list of what went wrong
        shutil.rmtree(partial, ignore_errors=True)
        said = error.args[0][0][-1] if isinstance(error, shutil.Error) else error.strerror
        raise DyDiffError(f"{path} is written, but could not be copied to {target}: {said}.",
                          "Make room there, or give it its id later: `dydiff-env mix --real PATH --out COPY --dataset-id ID`.") from error
    metadata = json.loads((partial / "metadata.json").read_text())
    (partial / "metadata.json").write_text(json.dumps(metadata | {"dataset_id": dataset_id}))
    publish(partial, target)
    return target


def check_unused(dataset_id: str, overwrite: bool) -> Path:
    """Where the dataset of this id goes, if it may be written.

    Raises:
        DyDiffError: where the id is malformed, or taken and ``overwrite`` is off.
    """
    target = registered_folder(check_dataset_id(dataset_id))
    if target.exists() and not overwrite:
        raise DyDiffError(f"The dataset {dataset_id} exists.",
                          "Choose another id, or replace it with --overwrite.")
    return target


def check_dataset_id(dataset_id: str) -> str:
    """``dataset_id`` if Minari takes it.

    Raises:
        DyDiffError: where it is not of the form NAMESPACE/NAME-vK.
    """
    match = DATASET_ID_RE.fullmatch(dataset_id)
    if match is None or match["version"] is None:
        raise DyDiffError(f"{dataset_id!r} is no Minari dataset id.",
                          "Use NAMESPACE/NAME-vK, for example demo/hopper-v0.", usage=True)
    return dataset_id


def dataset_id_for(path: str | Path) -> str:
    """An id for a folder that is not registered, made from its name."""
    name = re.sub(r"[^-\w]+", "-", Path(path).name.removesuffix(".minari")).strip("-") or "dataset"
    return f"local/{name}" if re.search(r"-v\d+$", name) else f"local/{name}-v0"
