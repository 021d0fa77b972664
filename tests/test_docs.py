"""The pages are true: their Python runs, their error messages exist, every page is reached from another."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import minari
import pytest
import torch

from dydiff_env.agents import agent_class
from dydiff_env.synthesis.export import export

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RUN = ("quickstart", "report", "your-own-dataset", "your-own-policy", "extending")


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


@pytest.fixture(scope="module")
def bench(tiny_world: Any, tiny_world_path: Path, tmp_path_factory: Any) -> Path:
    """A folder as a reader of the pages has it: a world, a checkpoint, a table of logs."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(tiny_world_path, folder / "world")
    agent_class("td3bc")(tiny_world.spec).save(folder / "ckpt.pt")
    rows = [f"{episode},{0.1 * step},{0.01 * step},0.5,1.0,{int(episode == 1 and step == 9)}"
            for episode in (0, 1) for step in range(10)]  # fmt: skip
    (folder / "logs.csv").write_text("\n".join(["episode,position,velocity,force,reward,terminated", *rows]))
    export(tiny_world, "random", folder / "syn.minari", batch=10, horizon=8)
    return folder


@pytest.mark.parametrize("name", RUN)
def test_the_code_of_a_page_runs_from_top_to_bottom(name: str, bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench)
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": name}
    for block in python_blocks(DOCS / f"{name}.md"):
        exec(compile(block, f"docs/{name}.md", "exec"), names)
    if name == "your-own-dataset":
        table, recorded = minari.MinariDataset("cart.minari"), minari.MinariDataset("pendulum.minari")
        assert (table.total_episodes, table.total_steps) == (2, 18) and recorded.total_episodes == 20
        assert [bool(episode.terminations[-1]) for episode in table] == [False, True]
    if name == "extending":
        assert minari.MinariDataset("certain.minari").total_episodes == 25


def test_messages_on_the_page_of_troubles_are_messages_of_the_program() -> None:
    sources = [file.read_text() for folder in ("dydiff_env", "cli", "agents") for file in (ROOT / folder).rglob("*.py")]
    code = re.sub(r'"\s*f?"', "", "\n".join(sources))  # neighbouring string literals are one
    headings = re.findall(r"^### `(.*)`$", (DOCS / "troubleshooting.md").read_text(), re.M)
    assert len(headings) > 15
    for heading in headings:
        if heading.startswith("--device"):
            assert heading in code
        for part in heading.split("…"):
            assert part.strip() in code, heading


def test_every_page_is_linked_from_another() -> None:
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    linked = {
        (page.parent / target).resolve() for page in pages for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())
    }
    assert {page.resolve() for page in DOCS.glob("*.md")} <= linked
