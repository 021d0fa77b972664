"""The pages are true: their Python runs, their error messages exist, every page is reached from another."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dydiff_env.agents import agent_class
from dydiff_env.cli.app import app, load
from dydiff_env.data.registry import register
from dydiff_env.synthesis.export import export
from dydiff_env.world import presets

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^```(\S*)\n(.*?)^```", re.S | re.M)

# Every command of the pages is run, with these sizes in place of the written ones (the last of two counts).
SMALL = {
    "collect": "--steps 600 --overwrite",
    "import-d4rl": "--overwrite",
    "import-table": "--overwrite",
    "mix": "--overwrite",
    "fit": "--overwrite",
    "export": "--batch 12 --horizon 8 --overwrite",
    "fidelity": "--starts 3 --iterations 1",
    "train": "--steps 20 --eval-episodes 1 --overwrite",
    "improve": "--rounds 1 --episode 8 --overwrite",
    "loop": "--rounds 1 --updates 5 --batch 8 --horizon 8 --eval-episodes 1 --overwrite",
    "evaluate": "--episodes 2",
    "report": "--starts 2 --overwrite",
    "demo": "--tiny --overwrite",
}


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, code) of a page's fenced blocks."""
    return BLOCK.findall(page.read_text())


def few(config: Any) -> Any:
    return replace(config, steps=12, evaluate_every=6)


@pytest.fixture(scope="module")
def bench(tiny_world: Any, tiny_world_path: Path, hopper_folder: Path, tmp_path_factory: Any) -> Path:
    """A folder as a reader of the pages has it: datasets, a world, checkpoints, tables of logs."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(tiny_world_path, folder / "world")
    for name in ("ckpt", "a", "b"):
        agent_class("td3bc")(tiny_world.spec, world=str(folder / "world")).save(folder / f"{name}.pt")
    rows = [f"{episode},{0.1 * step},{0.01 * step},{f'{0.1 * step - 0.5},1.0' if step < 9 else ','},{int(episode == 1 and step == 9)}"
            for episode in (0, 1) for step in range(10)]  # fmt: skip
    (folder / "logs.csv").write_text("\n".join(["episode,position,velocity,force,reward,terminated", *rows]))
    with h5py.File(folder / "hopper_medium-v2.hdf5", "w") as file:
        for name, shape in {"observations": (40, 11), "actions": (40, 3), "rewards": (40,)}.items():
            file[name] = np.full(shape, 0.1, np.float32)
        file["terminals"], file["timeouts"] = np.zeros(40, bool), np.arange(40) % 20 == 19
    export(tiny_world, "random", folder / "syn.minari", batch=10, horizon=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        for name in ("demo/hopper-mr-v0", "demo/hopper-v0"):
            register(hopper_folder, name)
    return folder


def run_line(line: str) -> None:
    """Run one line of a bash block: a command of ours in small form; of others, check that what they name exists."""
    words = shlex.split(line, comments=True)
    if words[0] == "dydiff-env":
        known = {option for parameter in load(words[1]).params for option in parameter.opts}
        assert {word for word in words[2:] if word.startswith("--")} <= known, line
        if words[1] == "demo" and Path("demo/report.html").exists():
            return  # another page's line has made it: once is enough
        result = CliRunner().invoke(app, [*words[1:], *SMALL.get(words[1], "").split()])
        assert result.exit_code == 0, f"{line}\n{result.output}"
    elif words[:2] == ["accelerate", "launch"]:
        run_line(shlex.join(["dydiff-env", *words[words.index("dydiff_env") + 1 :]]))  # in one process
    elif words[:2] == ["minari", "download"]:
        pass  # no network here
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), line
    elif words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), line  # tests/test_package.py runs the examples
    elif words[:2] == ["pip", "install"]:
        extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M)
        assert all(extra in extras for group in re.findall(r"\[(.*?)\]", line) for extra in group.split(",")), line
    else:
        assert line in ("python -m venv .venv && . .venv/bin/activate", "sphinx-build docs build/site"), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs_in_order(page: Path, bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python as it is written, commands in small form. Output is marked as ```text."""
    short = replace(presets.TINY, **{
        name: few(getattr(presets.TINY, name)) for name in vars(presets.TINY) if name.endswith("_training")
    })  # fmt: skip
    for name in ("fast", "quick", "tiny"):
        monkeypatch.setitem(presets.PRESETS, name, short)
    monkeypatch.setattr("dydiff_env.agents.svg.COPY_STEPS", 50)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(bench / "minari"))
    monkeypatch.chdir(bench)
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": page.stem}
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code, str(page), "exec"), names)
        elif language == "bash":
            for line in filter(None, map(str.strip, code.splitlines())):
                run_line(line)
        elif language == "toml":
            tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
            assert tomllib.loads(code)
        else:
            assert language == "text" or language.startswith("{"), f"a block marked {language!r}"
    if page.stem == "your-own-dataset":
        table, recorded = minari.MinariDataset("cart.minari"), minari.MinariDataset("pendulum.minari")
        assert (table.total_episodes, table.total_steps) == (2, 18) and recorded.total_episodes == 20
        recorded.recover_environment().close()
        assert [bool(episode.terminations[-1]) for episode in table] == [False, True]
    if page.stem == "extending":
        assert minari.MinariDataset("certain.minari").total_episodes == 25


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


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
    linked = {
        (page.parent / target).resolve() for page in PAGES for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())
    }
    assert {page.resolve() for page in DOCS.glob("*.md")} - {DOCS / "index.md"} <= linked


def test_the_pages_build_into_a_site_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    line = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "-d", tmp_path / "trees", DOCS, tmp_path / "site"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {page.stem: page.read_text() for page in (tmp_path / "site").glob("*.html")}
    assert {page.stem for page in DOCS.glob("*.md")} <= built.keys()
    assert "World.dream" in built["api"] and "<math" in built["method"]
    fetched = [url for page in built.values() for url in re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?:[^\"]*)", page)]
    assert not fetched  # the site opens without a network
    assert re.search(r'<a [^>]*href="[^"]*presets.md"', built["quickstart"])  # a file that is no page is still a link
