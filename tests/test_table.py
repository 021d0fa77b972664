"""Tables of logs become Minari datasets, whatever a row is."""

from __future__ import annotations

import json
from pathlib import Path

import minari
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet
from typer.testing import CliRunner

from dydiff_env.cli.app import app
from dydiff_env.data.dataset import Dataset
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.data.table import Columns, import_table
from dydiff_env.errors import DyDiffError

COLUMNS = Columns("run", ["x_*"], ["push"], "paid", "fell")
HEAD = "run,x_a,x_b,push,paid,fell"


def read(folder: Path, lines: list[str], columns: Columns = COLUMNS, head: str = HEAD, **options) -> tuple[Dataset, dict[str, object]]:
    """What becomes of a CSV of these rows."""
    (folder / "log.csv").write_text("\n".join([head, *lines]) + "\n")
    how = {"overwrite": True, "bounds": (-1, 1), **options}
    found = import_table(folder / "log.csv", folder / "log.minari", "tests/log-v0", columns, **how)
    return load_dataset(folder / "log.minari", cache=False), vars(found)


def test_one_row_a_state_ends_where_its_last_row_says(tmp_path):
    data, found = read(tmp_path, ["b,0,1,.5,1,0", "b,1,2,.6,2,0", "b,2,3,,,true", "a,9,8,.1,3,0", "a,8,7,,,0"])
    assert data.lengths.tolist() == [2, 1] and data.terminations.tolist() == [True, False]
    assert data.episode(0).observations.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert data.episode(0).actions[:, 0] == pytest.approx([0.5, 0.6]) and data.rewards.tolist() == [1, 2, 3]
    assert (found["episodes"], found["transitions"], found["terminated"], found["dropped"], found["repeated"]) == (2, 3, 1, 0, 0)
    assert minari.MinariDataset(tmp_path / "log.minari").total_steps == 3


def test_the_last_actions_row_may_say_that_it_is_over(tmp_path):
    data, _ = read(tmp_path, ["1,0,1,.5,1,0", "1,1,2,.6,2,1", "1,2,3,,,"])
    assert data.lengths.tolist() == [2] and data.terminations.tolist() == [True]


def test_one_row_a_step_drops_or_repeats_what_it_does_not_say(tmp_path):
    rows = ["1,0,1,.5,1,0", "2,5,5,.1,7,0", "1,1,2,.6,2,1", "2,6,6,.2,8,0"]  # episodes in turns
    data, found = read(tmp_path, rows)
    assert data.episode(0).observations.tolist() == [[0, 1], [1, 2], [1, 2]] and data.terminations.tolist() == [True, False]
    assert data.episode(1).observations.tolist() == [[5, 5], [6, 6]] and data.rewards.tolist() == [1, 2, 7]
    assert (found["dropped"], found["repeated"]) == (1, 1)
    as_states, _ = read(tmp_path, rows, rows="states")
    assert as_states.lengths.tolist() == [1, 1] and as_states.terminations.tolist() == [True, False]


def test_columns_of_the_next_state_tell_all(tmp_path):
    columns = Columns("run", ["x"], ["push"], "paid", None, ["next_x"])
    data, found = read(tmp_path, ["1,0,.5,1,1", "1,1,.6,2,2", "2,7,.1,3,8"], columns, "run,x,push,paid,next_x")
    assert data.observations[:, 0].tolist() == [0, 1, 2, 7, 8] and not data.terminations.any()
    assert (found["transitions"], found["dropped"], found["repeated"]) == (3, 0, 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.booleans(), st.randoms(use_true_random=False))
def test_steps_survive_any_order_of_episodes(tmp_path_factory, lengths, parquet_file, random):
    folder, rng = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    states = [rng.normal(size=n + 1).astype(np.float32) for n in lengths]
    rows = [(i, s, a, n) for i, x in enumerate(states) for s, a, n in zip(x[:-1], x[1:] / 9, x[1:], strict=True)]
    left = [[k for k, row in enumerate(rows) if row[0] == i] for i in range(len(lengths))]
    turns = [row[0] for row in rows]
    random.shuffle(turns)
    order = [left[i].pop(0) for i in turns]  # episodes in any turns, each in the order of time
    begun = list(dict.fromkeys(turns))
    table = pa.table({"run": [f"no {rows[k][0]}" for k in order], "x": [rows[k][1] for k in order], "a": [rows[k][2] for k in order],
                      "r": [1.0] * len(rows), "n": [rows[k][3] for k in order]})  # fmt: skip
    write, name = (parquet.write_table, "log.parquet") if parquet_file else (feather.write_feather, "log.feather")
    write(table, folder / name)
    import_table(folder / name, folder / "out", "tests/log-v0", Columns("run", ["x"], ["a"], "r", None, ["n"]), bounds=(-9, 9))
    data = load_dataset(folder / "out", cache=False)
    assert data.lengths.tolist() == [lengths[i] for i in begun]
    assert np.array_equal(data.observations[:, 0], np.concatenate([states[i] for i in begun]))


def test_one_name_needs_no_list(tmp_path):
    data, _ = read(tmp_path, ["1,0,1,.5,1,0", "1,1,2,.6,2,0", "1,2,3,,,1"], Columns("run", "x_*", "push", "paid", "fell"))
    assert data.episode(0).observations.tolist() == [[0, 1], [1, 2], [2, 3]]
    after, _ = read(tmp_path, ["1,0,.5,1,1", "1,1,.6,2,2"], Columns("run", "x1", "push", "paid", None, "next_x"), "run,x1,push,paid,next_x")
    assert after.observations[:, 0].tolist() == [0, 1, 2]


def test_a_name_with_brackets_is_a_name(tmp_path):
    data, _ = read(tmp_path, ["1,9,1,.1,1", "1,9,2,.2,1"], Columns("run", ["x[0]"], ["u*"], "paid"), "run,x0,x[0],u,paid")
    assert data.observations[:, 0].tolist() == [1, 2]


def test_bounds_are_given_or_taken_from_the_log_with_a_word(tmp_path):
    (tmp_path / "log.csv").write_text(f"{HEAD}\n1,0,0,-.5,1,0\n1,1,1,2,1,0\n1,1,1,,,0\n")
    with pytest.warns(UserWarning, match="bounded by what was logged: -0.5 to 2"):
        import_table(tmp_path / "log.csv", tmp_path / "out", "tests/log-v0", COLUMNS)
    low, high = load_dataset(tmp_path / "out").spec.action_bounds
    assert (low.tolist(), high.tolist()) == ([-0.5], [2.0])


@pytest.mark.parametrize(
    ("rows", "changed", "said"),
    [
        (["1,0,0,.1,1,0"], {"columns": Columns("run", ["y"], ["push"], "paid")}, "no column 'y'"),
        (["1,0,0,.1,1,0"], {"columns": Columns("ran", ["x_a"], ["push"], "paid")}, "Did you mean run"),
        (["1,0,0,.1,1,0"], {"columns": Columns("run", [], ["push"], "paid")}, "No columns are named"),
        (["1,0,zero,.1,1,0"], {}, "'x_b' of log.csv holds other things than numbers"),
        (["1,0,0,.1,1,maybe"], {}, "other things than 0 and 1"),
        ([",0,0,.1,1,0", "1,0,0,.1,1,0"], {}, "'run' of log.csv is blank in 1 of 2 rows"),
        ([",0,0,.1,1,0", "a,0,0,.1,1,0"], {}, "'run' of log.csv is blank in 1 of 2 rows"),
        (["1,0,0,.1,1,0", "1,0,,.1,1,0", "1,0,0,,,0"], {}, "NaN .* in observations, row 1"),
        (["1,0,0,.1,1,0", "1,0,0,,1,0", "1,0,0,.2,1,0", "1,0,0,,,0"], {"bounds": None}, "NaN .* in actions, row 1"),
        (["1,0,0,.1,1,1", "1,0,0,.1,1,0", "1,0,0,,,0"], {}, "'fell' of log.csv is 1 before the last row"),
        (["1,0,0,.1,1,1"], {"env": "Hopper-v5"}, "Hopper-v5 says what bounds its actions have"),
        (["1,0,0,.1,1,1"], {"columns": Columns("run", ["x_a"], ["push"], "paid", None, ["x_b"]), "rows": "states"}, "a step's"),
        (["1,0,0,.1,1,0", "1,0,0,,,0", "2,0,0,.1,1,0"], {}, "1 of the 2 episodes .* end in a row without an action"),
        (["1,0,0,.1,1,0", "2,0,0,.1,1,0"], {}, "no episode with a step"),
        (["1,0,0,.1,1,0"], {"rows": "columns"}, "no kind of row"),
        (["1,0,0,.1,1,0", "1,0,0"], {}, "cannot be read"),
        (["1,0,0,.1,1,1"], {"env": "Hopper-v5", "bounds": None}, "2 observations and 1 actions are named; Hopper-v5 has 11 and 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named_and_nothing_is_left(rows, changed, said, tmp_path):
    with pytest.raises(DyDiffError, match=said):
        read(tmp_path, rows, **changed)
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]


def test_from_the_command_line(tmp_path):
    (tmp_path / "log.csv").write_text(f"{HEAD}\n1,0,0,-.5,1,0\n1,1,1,.2,1,0\n1,1,1,,,1\n")
    words = ["import-table", tmp_path / "log.csv", "--episode", "run", "--observations", "x_a, x_b", "--actions", "push", "--reward",
             "paid", "--terminated", "fell", "--low", -1, "--high", 1, "--dataset-id", "tests/table-v0", "--json"]  # fmt: skip
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["episodes"], document["transitions"], document["terminated"]) == (1, 2, 1)
    assert minari.load_dataset("tests/table-v0").total_steps == 2
    again = [str(word) for word in words]
    again[again.index("tests/table-v0")] = "tests/both-v0"  # with a folder of its own, too
    assert CliRunner().invoke(app, [*again, "--out", str(tmp_path / "both")]).exit_code == 0
    assert minari.load_dataset("tests/both-v0").total_steps == minari.MinariDataset(tmp_path / "both").total_steps == 2
    refused = CliRunner().invoke(app, [*again, "--out", str(tmp_path / "other")])
    assert refused.exit_code == 1 and "exists" in refused.stderr and not (tmp_path / "other").exists()
    result = CliRunner().invoke(app, [str(word) for word in words if word not in ("--high", 1)])
    assert result.exit_code == 2 and "Only one of" in result.stderr
