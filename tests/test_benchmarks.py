"""The harness' statistics are right, peers answer over their lines, and every benchmark can be called.

Nothing is timed.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.__main__ import names_of
from benchmarks.harness import (
    Cannot,
    Compared,
    Pairs,
    Took,
    compare,
    interleave,
    say_compared,
    scratch,
    size,
    skip,
)
from benchmarks.peers import GROUPS, Peer, python_of


def test_the_ratio_is_taken_within_each_pair():
    slow = np.array([1.0, 10.0, 100.0])  # a machine that gets slower and slower
    assert Pairs(slow, 2 * slow).ratio == 2.0
    assert Pairs(slow, 2 * slow).bounds() == (2.0, 2.0)


def test_bounds_hold_the_median_and_narrow_with_more_pairs():
    rng = np.random.default_rng(0)

    def width(n: int) -> float:
        pairs = Pairs(np.ones(n), rng.lognormal(0, 0.2, n))
        low, high = pairs.bounds()
        assert low <= pairs.ratio <= high
        return high - low

    assert width(400) < width(10)


def test_interleaving_changes_who_comes_first_and_warms_both():
    called: list[str] = []
    pairs = interleave(lambda: called.append("a"), lambda: called.append("b"), pairs=4)
    assert called[:2] == ["a", "b"]
    turns = ["".join(called[at : at + 2]) for at in range(2, 10, 2)]
    assert sorted(turns) == ["ab", "ab", "ba", "ba"]
    assert len(pairs.ours) == len(pairs.other) == 4


def test_comparing_is_by_seconds_a_row():
    rounds: list[int] = []

    def ours(turn: int) -> Took:
        rounds.append(turn)
        return Took(seconds=2.0, cpu_seconds=1.0, rows=100)

    found = compare(
        ours, lambda turn: Took(seconds=1.0, cpu_seconds=1.0, rows=10), pairs=5
    )
    assert rounds == [0, 1, 2, 3, 4, 5]  # the first warms and does not count
    assert found.wall.ratio == pytest.approx(5.0)
    assert found.cpu.ratio == pytest.approx(10.0)
    assert (found.rows, found.other_rows) == (100, 10)
    assert found.reaches(5.0) and not found.reaches(5.1)  # both must reach it


def test_a_goal_by_the_lower_bound_is_harder():
    values = np.array([0.8, 0.95, 0.96, 0.97, 0.98])
    found = Compared(Pairs(np.ones(5), values), Pairs(np.ones(5), values), 1, 1)
    assert found.reaches(0.9)
    assert not found.reaches(0.9, by_bound=True)


def test_a_comparison_ends_early_only_after_the_least_pairs():
    found = compare(
        lambda turn: Took(1, 1, 1),
        lambda turn: Took(1, 1, 1),
        pairs=20,
        least=3,
        limit_seconds=-1,
    )
    assert len(found.wall.ours) == 3


def test_a_line_has_every_field(capsys: pytest.CaptureFixture[str]):
    values = np.full(3, 0.5)
    say_compared(
        Compared(Pairs(values, 3 * values), Pairs(values, 2 * values), 7, 8),
        name="n",
        other="o",
        least=2.5,
        versions={"torch": "2"},
    )
    line = json.loads(capsys.readouterr().out)
    assert {
        "name",
        "ours",
        "other",
        "value",
        "unit",
        "ratio",
        "goal",
        "holds",
        "bounds",
        "wall_ratio",
        "wall_bounds",
        "pairs",
        "rows",
        "versions",
    } <= set(line)
    assert (line["ratio"], line["wall_ratio"], line["holds"], line["value"]) == (
        2.0,
        3.0,
        False,
        2.0,
    )
    skip("n", Cannot("no"))
    assert json.loads(capsys.readouterr().out) == {"name": "n", "skipped": "no"}


def test_sizes_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert size("SOMETHING", 5) == 5
    monkeypatch.setenv("BENCH_SOMETHING", "7")
    assert size("SOMETHING", 5) == 7
    monkeypatch.setenv("BENCH_FOLDER", str(tmp_path))
    with scratch("a") as folder:
        pass
    assert folder == tmp_path / "a" and folder.is_dir()  # kept
    monkeypatch.delenv("BENCH_FOLDER")
    with scratch("a") as folder:
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.parametrize("name", names_of())
def test_every_benchmark_can_be_called(name: str):
    module = importlib.import_module(f"benchmarks.{name}")
    assert callable(module.bench)
    assert module.__doc__


def test_peers_are_pinned_and_torch_is_named_exactly():
    assert GROUPS
    for group in GROUPS:
        lines = [
            line
            for line in (peers.HERE / f"{group}.txt").read_text("utf-8").splitlines()
            if line and not line.startswith("#")
        ]
        assert lines[0].startswith("torch==")
        assert all("==" in line and "+" not in line for line in lines)


def test_an_absent_environment_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    with pytest.raises(Cannot, match="make peers"):
        python_of("loading")


def test_an_unknown_group_is_refused(capsys: pytest.CaptureFixture[str]):
    assert peers.main(["loadin"]) == 2
    assert "loading" in capsys.readouterr().err


def test_a_peer_answers_and_is_counted(tmp_path: Path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "floats.npy", rng.normal(size=(100, 3)).astype(np.float32))
    np.save(tmp_path / "ints.npy", rng.integers(0, 9, (100, 2)))
    np.save(tmp_path / "labels.npy", np.arange(100))
    with Peer("memory", group=None, cores=1, folder=tmp_path) as peer:
        peer.setup("tabular", data=str(tmp_path), batch=32, seed=0)
        assert set(peer.versions) == {"torch", "numpy"}
        assert peer.check() == {
            "rows": 100,
            "total": 4950,
            "first": [
                ["torch.float32", [32, 3]],
                ["torch.int64", [32, 2]],
                ["torch.int64", [32]],
            ],
        }
        took = peer.run(1)
        assert took.rows == 100 and took.seconds > 0 and took.cpu_seconds > 0
        with pytest.raises(Cannot, match="FileNotFoundError"):
            peer.setup("tabular", data=str(tmp_path / "absent"), batch=32, seed=0)
