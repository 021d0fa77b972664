"""One HTML page that shows what was learned, dreamt and trained, and how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dydiff_env.errors import DyDiffError
from dydiff_env.publish import replacing


def report(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    policy: str | Path | None = None,
    starts: int = 12,
    trust: bool = False,
    vecnormalize: str | Path | None = None,
    overwrite: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Write the report of worlds, datasets, checkpoints, logs and runs. The page needs no network and no other file.

    Args:
        sources: paths or Minari ids; a folder that is none of these is searched one level deep.
        out: the HTML file.
        policy: whose rollouts are shown: anything ``load_policy`` takes; default: the first checkpoint among the
            sources that fits the world, else the world's clone of its best episodes, else random.
        starts: rollouts in the picture.
        trust: allow a policy format that can run code on loading.
        vecnormalize: SB3's VecNormalize statistics, for an SB3 policy.
        overwrite: replace an existing ``out``.
        seed: of the starts.
        device: where the world dreams.

    Returns:
        ``out``, ``megabytes``, and how many worlds, datasets, checkpoints, logs, loops and fidelities it shows.

    Raises:
        DyDiffError: for a source that nothing can be made of, an existing ``out``, or plotly missing.
    """
    try:
        import plotly  # noqa: F401
    except ImportError:
        raise DyDiffError("Reports need plotly, which is not installed.", 'pip install "dydiff-env[report]".') from None
    from dydiff_env.evaluation.report.page import render
    from dydiff_env.evaluation.report.sections import Dreaming, all_sections
    from dydiff_env.evaluation.report.sources import find_sources, labels

    out = Path(out).expanduser()
    if out.exists() and not overwrite:
        raise DyDiffError(f"{out} exists.", "Choose another --out, or replace it with --overwrite.", usage=True)
    if out.exists() and not _is_page(out):
        raise DyDiffError(f"{out} is there and is not a report: it stays.", "Choose another --out.", usage=True)
    if starts < 1:
        raise DyDiffError(f"--starts is {starts}.", "Give 1 or more.", usage=True)
    found = find_sources(sources)
    headlines, sections = all_sections(found, Dreaming(policy, starts, trust, vecnormalize, seed, device))
    names = ", ".join(labels([Path(source) for source in dict.fromkeys(sources)]))
    with replacing(out) as partial:
        partial.write_text(render(f"dydiff-env report: {names}", headlines, sections), encoding="utf-8")
    counts = {name: len(paths) for name, paths in vars(found).items()}
    return {"out": str(out), "megabytes": round(out.stat().st_size / 1e6, 1), **counts}


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(15).lower() == b"<!doctype html>"
