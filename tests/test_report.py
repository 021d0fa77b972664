"""A report shows what it is given, opens without a network, and its slider moves the picture."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from typer.testing import CliRunner

from dydiff_env.cli.app import app
from dydiff_env.data.simulator import make_env
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.mazes import free_of_walls, wall_squares
from dydiff_env.evaluation.report import report
from dydiff_env.evaluation.report.curves import final_table, groups
from dydiff_env.evaluation.report.page import Chart, Facts, Headline, Section, Table, render
from dydiff_env.evaluation.report.rollouts import refinement_chart
from dydiff_env.evaluation.report.sources import Sources, find_sources, labels
from dydiff_env.evaluation.statistics import (
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
)
from dydiff_env.policies import load_policy
from dydiff_env.synthesis.export import export

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def write_log(path: Path, shift: float = 0.0) -> Path:
    rows = [f"{u},1.0,0.5,0.2,{100 + u / 10 + shift},5.0,30,{u / 100 + shift}" for u in (100, 200, 300)]
    head = "updates,seconds,actor_loss,critic_loss,return_mean,return_std,length_mean,normalized_score"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tiny_world: Any, tiny_world_path: Path, hopper_folder: Path, tmp_path_factory: Any) -> Path:
    """A folder as `demo` leaves one: data, a world, an export, logs of three seeds, a loop, a measured fidelity."""
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(tiny_world_path, folder / "world")
    shutil.copytree(hopper_folder, folder / "real.minari")
    export(tiny_world, "random", folder / "syn.minari", batch=20, trajectories=24, horizon=8)
    for seed in range(3):
        write_log(folder / f"td3bc-s{seed}.csv", seed)
    loop = folder / "loop"
    loop.mkdir()
    rounds = [{"round": i, "dream_return": 3.0 * i, "return_mean": 2.0 * i, "uncertainty": 0.1} for i in (1, 2)]
    (loop / "loop.json").write_text(json.dumps({"config": {"rounds": 2}, "algorithm": "td3bc", "rounds": rounds}))
    against = {"real": {"survival": 1.0}, "M0": {"mean": 0.2, "survival": 0.9}, "M1": {"mean": 0.1, "survival": 1.0}}
    (folder / "fidelity.json").write_text(json.dumps({"policies": {"random": against}}))
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    out = run.parent / "report.html"
    result = CliRunner().invoke(app, ["report", str(run), str(run / "loop"), "--out", str(out), "--starts", "3", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["worlds"], found["datasets"], found["logs"], found["loops"], found["fidelities"]) == (1, 2, 3, 1, 1)
    return out


def markup(page: Path) -> str:
    return re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.S)


def test_every_source_has_its_section_and_its_provenance(page: Path, run: Path) -> None:
    text = markup(page)
    for words in ("Fidelity: world", "Rollouts before and after refinement", "Against the simulator", "The filter: syn",
                  "Learning curves", "Algorithm 1", "interquartile mean", "24 of 30 rollouts kept"):  # fmt: skip
        assert words in text, words
    assert all(str(run / name) in text for name in ("world", "real.minari", "syn.minari", "loop"))


def test_the_page_asks_for_nothing_outside_itself(page: Path) -> None:
    links = re.findall(r"(?:src|href)=['\"]([^'\"]*)", markup(page))
    assert links and all(link.startswith(("#", "data:")) for link in links)


def test_names_cannot_break_out_of_the_page() -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    figure = go.Figure().add_scatter(x=[1], y=[1], name=evil)
    parts: Any = [Chart(figure, evil, ("0",), (evil,)), Table([evil], [[evil, evil]], evil), Facts(evil, {evil: evil})]
    text = render(evil, [Headline(evil, evil)], [Section(evil, evil, parts)])
    assert evil not in text and "<img src=x" not in text


def test_the_same_sources_give_the_same_page(run: Path, tmp_path: Path) -> None:
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for out in pages:
        report([run / "syn.minari", run / "td3bc-s0.csv"], out)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_runs_that_differ_in_their_seed_are_one_group(tmp_path: Path) -> None:
    logs = [write_log(tmp_path / name) for name in ("td3bc-s0.csv", "td3bc-s1.csv", "cql_seed3.csv", "plain.csv")]
    assert {name: len(runs) for name, runs in groups(logs).items()} == {"cql": 1, "plain": 1, "td3bc": 2}
    assert probability_of_improvement(np.array([2.0, 3.0]), np.array([1.0, 3.0])) == 0.625


def test_the_interval_beside_the_interquartile_mean_is_its_own() -> None:
    finals = np.array([1.0, 2.0, 3.0, 4.0, 1000.0])
    runs = {"a": [{"updates": [1.0], "return_mean": [value]} for value in finals]}
    runs["b"] = [{"updates": [1.0], "return_mean": [value + 2]} for value in finals]
    first, second = final_table(runs, "return_mean").rows
    assert interquartile_mean(finals) == first[4] == 3.0  # the outlier is cut off
    low, high = bootstrap_interval(finals, statistic=interquartile_mean)
    assert first[5] == f"{low:.4g} to {high:.4g}" and low < 3 < high
    assert first[6] == "–" and second[6].startswith(f"{probability_of_improvement(finals + 2, finals):.2f} (")


def test_runs_are_compared_after_as_many_updates() -> None:
    logs = [{"updates": [1.0, 2.0, 3.0][:n], "return_mean": [1.0, 2.0, 30.0][:n]} for n in (3, 2)]  # one is still under way
    assert final_table({"a": logs}, "return_mean").rows[0][1:4] == [2, 2, 2.0]
    logs = [{"updates": [at], "return_mean": [at]} for at in (1.0, 2.0)]  # nowhere together
    assert final_table({"a": logs}, "return_mean").rows[0][1:4] == [2, None, 1.5]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_registered_dataset_is_called_by_its_id(tmp_path: Path) -> None:
    for name in ("one-v0", "other-v0"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "metadata.json").write_text("{}")
    assert labels([tmp_path / "one-v0" / "data", tmp_path / "other-v0" / "data", tmp_path / "syn.minari"]) == ["one-v0", "other-v0", "syn"]


def test_reality_is_not_drawn_for_a_policy_that_draws(tiny_world: Any) -> None:
    still = lambda rows: 0.0 * rows[:, : tiny_world.spec.action_size]  # noqa: E731
    shown = [refinement_chart(tiny_world, load_policy(policy, tiny_world.spec), "it", starts=2, most=1) for policy in (still, "random")]
    assert ["error" in chart.notes[0] for chart in shown] == [True, False]
    rng = np.random.default_rng(0)
    by_numpy = lambda rows: torch.from_numpy(rng.uniform(-1, 1, (len(rows), tiny_world.spec.action_size)).astype(np.float32))  # noqa: E731
    assert len(refinement_chart(tiny_world, load_policy(by_numpy, tiny_world.spec), "it", starts=2, most=1).notes) == 1  # M = 0 alone


def test_statistics_of_an_sb3_policy_are_for_its_picture(run: Path, tmp_path: Path) -> None:
    words = ["report", run / "world", "--policy", "random", "--vecnormalize", tmp_path / "x.pkl", "--out", tmp_path / "r.html"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 2 and "vecnormalize goes with" in " ".join(result.stderr.split())


def test_the_statistics_are_those_of_rliable() -> None:
    try:
        from rliable import library, metrics
    except Exception as error:  # rliable 1.2 asks for arch < 8, which pandas 3 breaks by a TypeError on import
        pytest.skip(f"rliable cannot be imported: {error}")
    values, other = np.random.default_rng(0).normal((0.5, 0.0), size=(9, 2)).T
    runs = {"a": (values[:, None], other[:, None])}  # (runs, tasks)
    assert interquartile_mean(values) == pytest.approx(metrics.aggregate_iqm(values[:, None]))
    theirs = metrics.probability_of_improvement(*runs["a"])
    assert probability_of_improvement(values, other) == pytest.approx(theirs)

    def interval(scores: Any, statistic: Any) -> list[float]:
        draws = {"reps": 4000, "random_state": np.random.RandomState(0)}
        return np.ravel(library.get_interval_estimates({"a": scores}, statistic, **draws)[1]["a"]).tolist()

    ours = bootstrap_interval(values, statistic=interquartile_mean, samples=4000)
    assert ours == pytest.approx(interval(values[:, None], lambda x: np.array([metrics.aggregate_iqm(x)])), abs=0.06)
    ours = bootstrap_interval(values, other, statistic=probability_of_improvement, samples=4000)
    assert ours == pytest.approx(interval(runs["a"], metrics.probability_of_improvement), abs=0.03)


def test_wall_squares_are_where_positions_count_as_blocked() -> None:
    pytest.importorskip("gymnasium_robotics")
    maze: Any = make_env("PointMaze_UMaze-v3").unwrapped.maze
    middles = np.array([[(x0 + x1) / 2, (y0 + y1) / 2] for x0, y0, x1, y1 in wall_squares(maze)])[:, None]
    assert not free_of_walls(middles, np.ones(middles.shape[:2], bool), maze).any()


@pytest.mark.parametrize(
    ("sources", "words"),
    [([], "nothing to report"), (["no/such-v0"], "No dataset"), (["empty"], "holds nothing"), (["note.txt"], "is nothing")],
)
def test_what_cannot_be_shown_is_said(sources: list[str], words: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("note.txt").write_text("hello")
    with pytest.raises(DyDiffError, match=words):
        report(sources, "r.html")
    assert not Path("r.html").exists()


def test_what_else_lies_in_a_folder_is_left_out(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "list.json").write_text("[1, 2]")
    (folder / "ranking.json").write_text(json.dumps({"policies": [{"policy": "a.pt"}]}))
    (folder / "latin.csv").write_bytes("größe,1\n".encode("latin-1"))
    (folder / "notes.pt").write_text("not a policy")
    (folder / "unfinished.saving").mkdir()
    (folder / "unfinished.saving" / "world.json").write_text("{}")
    assert find_sources([folder]) == Sources(
        *([folder / path.relative_to(run) for path in found] for found in vars(find_sources([run])).values())
    )


def test_an_existing_page_stays_and_a_missing_plotly_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    log, out = write_log(tmp_path / "run.csv"), tmp_path / "r.html"
    out.write_text("mine")
    with pytest.raises(DyDiffError, match="--overwrite"):
        report([log], out)
    with pytest.raises(DyDiffError, match="is not a report: it stays"):
        report([log], out, overwrite=True)
    with pytest.raises(DyDiffError, match="is not a report: it stays"):
        report([log], tmp_path, overwrite=True)
    assert out.read_text() == "mine"
    out.write_text("<!DOCTYPE html>an older page")
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(DyDiffError, match=re.escape("dydiff-env[report]")):
        report([log], out, overwrite=True)


PROBE = """<script>(async()=>{await new Promise(r=>setTimeout(r,500));
const input=document.querySelector('input[type=range]'),plot=input.closest('figure').querySelector('.plot');
const look=()=>[...plot.querySelectorAll('.scatterlayer path.js-line')].map(p=>p.getAttribute('d')).join();
const said=[];for(const stop of [0,2]){input.value=stop;input.dispatchEvent(new Event('input'));
await new Promise(r=>setTimeout(r,300));said.push({path:look(),note:plot.parentNode.querySelector('output').textContent});}
const out=document.createElement('pre');out.id='probe';out.textContent=JSON.stringify({said,
drawn:document.querySelectorAll('.plot .main-svg').length,wide:document.documentElement.scrollWidth});document.body.append(out);})()
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser_it_loads_without_errors_and_the_slider_moves_the_picture(page: Path, tmp_path: Path) -> None:
    probe = tmp_path / "probe.html"
    probe.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    line = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=600,900",
            f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
            "--virtual-time-budget=8000", "--dump-dom", probe.as_uri()]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr
    document = json.loads(found[1])
    assert document["drawn"] > 0 and document["wide"] <= 600
    before, after = document["said"]
    assert before["path"] and after["path"] and before["path"] != after["path"]
    assert "M = 0" in before["note"] and "M = 2" in after["note"]
