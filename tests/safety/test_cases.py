"""The inputs beside the project that failed once (`../shared/cases`): each is used as it lies there, and has
its right value.

What has to be trained is slow. The quick ring watches those kinds with inputs of its own: a bundle that is
packed elsewhere and types of later files in `test_values.py` and `test_meaning_learnt.py`, kept columns in
`test_meaning.py`, short series in `test_meaning_series.py`, pictures in `test_damaged.py`. Without
`../shared` they are skipped.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock
from penstock.core.errors import UserError
from penstock.formats.pictures import BadPicture
from tests.safety import CASES

LATER = {"init"}
"""Folders whose promises are another issue's: what `penstock init` sees in a file."""
GIVEN_SECONDS = 280


def case(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the inputs of a case, those that its `make.py` makes as well; also the working
    directory.
    """
    if not (CASES / name).is_dir():
        pytest.skip(
            f"the inputs that failed once (../shared/cases/{name}) are not on this machine"
        )
    folder = tmp_path / name
    folder.mkdir()
    for path in (CASES / name).iterdir():
        shutil.copyfile(path, folder / path.name)
    monkeypatch.chdir(folder)
    return folder


def made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = case(name, tmp_path, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # it is a short script, and closes no file
        runpy.run_path("make.py")
    return folder


def command(
    folder: Path, *words: str, world: dict[str, str] | None = None
) -> dict[str, Any]:
    """What a command says with `--json`, in a process of its own, in another world where one is given."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *words, "--json"],
        cwd=folder,
        env={**os.environ, **(world or {})},
        capture_output=True,
        timeout=GIVEN_SECONDS,
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def trained(folder: Path) -> str:
    """The folder of the bundle that the case's recipe makes."""
    outcome = penstock.run(folder / "recipe.yaml", store=folder / "store")
    assert outcome.bundle is not None
    return str(outcome.bundle.path)


def predicted(
    bundle: str, file: Path, **words: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The counts of `predict`, and the lines that it wrote."""
    output = file.with_suffix(".out.jsonl")
    counts = penstock.predict(bundle, source=file, output=output, **words)
    return counts, [json.loads(line) for line in output.read_text("utf-8").splitlines()]


def quarantined(dataset: Any) -> list[dict[str, Any]]:
    return [
        row
        for path in (dataset.path / "quarantine").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    ]


def accounted(dataset: Any) -> bool:
    counts = dict(dataset.counts)
    return counts.pop("in") == sum(counts.values())


# -- what a value means --------------------------------------------------------------------------------------


def test_case_decimal_not_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decimals are allowed, bounded, joined and found as the numbers that they are written as."""
    folder = case("decimal_not_nearest", tmp_path, monkeypatch)
    rows = penstock.prepare(folder / "recipe.yaml", store=folder / "store")
    assert rows.counts["quarantined"] == 0
    table = rows.table("train").sort_by("b")
    assert (
        table["b"].to_pylist() == [0.29, 1.15, 7.1, 8.25]
        and table["v"].to_pylist() == ["ok"] * 4
    )
    alone = {
        "source": {"type": "files", "path": str(folder / "a.parquet")},
        "split": {"train": 1, "validation": 0, "test": 0},
    }
    expected: list[tuple[dict[str, Any], str, int]] = [
        ({"where": "b = 7.1"}, "filtered", 3),
        ({"expect": {"b": {"max": 7.1}}}, "quarantined", 1),
        ({"expect": {"b": {"allowed": [7.1, 8.25, 0.29]}}}, "quarantined", 1),
    ]
    for words, count, value in expected:
        assert (
            penstock.prepare({**alone, **words}, store=folder / "store").counts[count]
            == value
        ), words


@pytest.mark.parametrize("sibling", [False, True])
def test_case_header_per_file(
    sibling: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No header becomes data, whichever part has a value that reads like a column's name: all 80 rows keep
    their target.
    """
    folder = made("header_per_file", tmp_path, monkeypatch)
    if sibling:
        lines = (
            (folder / "part-0.csv")
            .read_text("utf-8")
            .replace(",k,", ",y,")
            .replace(",l,", ",x,")
        )
        (folder / "part-0.csv").write_text(lines, "utf-8")
    dataset = penstock.prepare(folder / "recipe.yaml", store=folder / "store")
    assert (
        dataset.counts["in"] == 80
        and dataset.counts["quarantined"] == 0
        and accounted(dataset)
    )
    rows = pa.concat_tables(
        dataset.table(split) for split in ("train", "validation", "test")
    )
    assert {"x", "c", "y"} <= set(rows.column_names) and rows["x"].type == pa.float64()
    wanted = {"x", "y", "m", "a", "b", "c"} if sibling else set("klmabc")
    assert set(rows["c"].to_pylist()) == wanted and set(rows["y"].to_pylist()) == {
        "u",
        "v",
    }


@pytest.mark.parametrize(
    "zone", ["America/New_York", pytest.param("Asia/Kolkata", marks=pytest.mark.slow)]
)
def test_case_machine_time_zone(
    zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hour of a moment with a zone is that of UTC, as it is written here, whatever the machine's zone."""
    folder = made("machine_time_zone", tmp_path, monkeypatch)
    said = command(
        folder, "prepare", "recipe.yaml", "--store", "there", world={"TZ": zone}
    )
    here = penstock.prepare(folder / "recipe.yaml", store=folder / "here")
    assert said["dataset"] == here.reference
    written = [
        int(line[11:13])
        for line in (folder / "a.csv").read_text("utf-8").splitlines()[1:]
    ]
    rows = pq.read_table(Path(said["path"]) / "rows").sort_by("t")
    assert sorted(rows["h"].to_pylist()) == sorted(written)
    assert rows["h"].to_pylist() == [moment.hour for moment in rows["t"].to_pylist()]


@pytest.mark.slow
def test_case_machine_time_zone_of_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle that was packed in one zone opens and answers alike in another."""
    folder = made("machine_time_zone", tmp_path, monkeypatch)
    bundle = command(folder, "run", "recipe.yaml", "--store", "s", world={"TZ": "UTC"})[
        "bundle"
    ]
    answers = []
    for zone in ("UTC", "America/New_York"):
        said = command(
            folder,
            "predict",
            bundle,
            "a.csv",
            "-o",
            "o.jsonl",
            "--store",
            "s",
            world={"TZ": zone},
        )
        assert (said["predicted"], said["refused"]) == (300, 0)
        answers.append((folder / "o.jsonl").read_bytes())
    assert answers[0] == answers[1]


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the case `predict_types_by_file`, with its bundle in `bundle`."""
    with pytest.MonkeyPatch.context() as patch:
        folder = case("predict_types_by_file", tmp_path_factory.mktemp("typed"), patch)
        (folder / "bundle").symlink_to(trained(folder))
    return folder


@pytest.mark.slow
def test_case_predict_types_by_file(typed: Path) -> None:
    """Two rows are answered alike in a file of two, in one of three, in files of their own, and in
    requests.
    """
    bundle = str((typed / "bundle").resolve())
    _, two = predicted(bundle, typed / "two.csv")
    _, three = predicted(bundle, typed / "three.csv")
    shares = [line["y_probabilities"]["yes"] for line in three]
    assert [line["y_probabilities"]["yes"] for line in two] == pytest.approx(
        shares[:2], abs=1e-6
    )
    assert [line["y"] for line in three] == [
        "yes",
        "no",
        "no",
    ]  # at least two of four signs, says make.py
    header, *rows = (typed / "two.csv").read_text("utf-8").splitlines()
    asked = [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]
    answers = penstock.Bundle.open(bundle).predict(asked)
    assert [answer["y_probabilities"]["yes"] for answer in answers] == pytest.approx(
        shares[:2], abs=1e-6
    )
    for row, share in zip(rows, shares, strict=False):
        (typed / "one.csv").write_text(f"{header}\n{row}\n", "utf-8")
        _, (line,) = predicted(bundle, typed / "one.csv")
        assert line["y_probabilities"]["yes"] == pytest.approx(share, abs=1e-6)


@pytest.mark.slow
def test_case_keep_target(typed: Path) -> None:
    """The truth that is kept stands beside the prediction.

    The case has no file, so these are another's, with a wrong truth.
    """
    header, *lines = (typed / "train.csv").read_text("utf-8").splitlines()
    wrong = [
        line.rsplit(",", 1)[0] + (",no" if line.endswith(",yes") else ",yes")
        for line in lines
    ]
    (typed / "with_truth.csv").write_text("\n".join([header, *wrong]) + "\n", "utf-8")
    _, answers = predicted(
        str((typed / "bundle").resolve()), typed / "with_truth.csv", keep=["y"]
    )
    assert [answer["y_kept"] for answer in answers] == [
        line.rsplit(",", 1)[1] for line in wrong
    ]
    assert sum(answer["y"] == answer["y_kept"] for answer in answers) < 0.1 * len(answers)


@pytest.mark.slow
def test_case_series_short_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every series is in the output, with a forecast or with a reason, and what is said of one does not
    depend on the others.
    """
    folder = made("series_short_vanish", tmp_path, monkeypatch)
    bundle = trained(folder)
    counts, lines = predicted(bundle, folder / "new.csv")
    assert (counts["rows"], counts["predicted"], counts["refused"]) == (65, 2, 1)
    series = {line["id"]: line for line in lines}
    assert set(series) == {"a", "c", "short"} and all(
        len(series[name]["ahead"]) == 3 for name in ("a", "c")
    )
    assert (
        series["short"]["ahead"] is None
        and "5 steps in a row" in series["short"]["refused"]
    )
    _, mixed = predicted(bundle, folder / "mixed.csv")
    _, (alone,) = predicted(bundle, folder / "alone.csv")
    assert alone in mixed and alone["id"] == "b" and alone["refused"]
    assert {line["id"] for line in mixed if line["ahead"]} == {"a"}
    (folder / "none.csv").write_text("id,t,v\n", "utf-8")
    assert predicted(bundle, folder / "none.csv")[1] == []
    (folder / "none.csv").write_text("id,t\n", "utf-8")
    with pytest.raises(UserError, match="v: is required, and no such column is there"):
        predicted(bundle, folder / "none.csv")


# -- nothing is lost, and no neighbour pays ------------------------------------------------------------------


def costs_its_row_alone(folder: Path, file: str, line: int) -> None:
    dataset = penstock.prepare(folder / "recipe.yaml", store=folder / "store")
    assert dataset.counts["quarantined"] == 1 and accounted(dataset)
    (row,) = quarantined(dataset)
    assert (row["file"], row["line"]) == (file, line) and row["reason"]


def test_case_parquet_bad_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs_its_row_alone(case("parquet_bad_utf8", tmp_path, monkeypatch), "a.parquet", 2)


def test_case_parquet_year_10000(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a CSV file as it lies there, and in a Parquet file beside it."""
    folder = case("parquet_year_10000", tmp_path, monkeypatch)
    costs_its_row_alone(folder, "a.csv", 3)
    moments = pa.array([0, 2**62, 1], pa.timestamp("us", "America/New_York"))
    pq.write_table(pa.table({"t": moments, "k": [1, 2, 3]}), folder / "a.parquet")
    recipe = (folder / "recipe.yaml").read_text("utf-8").replace("a.csv", "a.parquet")
    (folder / "recipe.yaml").write_text(recipe, "utf-8")
    costs_its_row_alone(folder, "a.parquet", 2)


def test_case_png_crc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its siblings, with any byte changed, are in `test_damaged.py`."""
    case("png_crc", tmp_path, monkeypatch)
    with pytest.raises(BadPicture, match=r"damaged|CRC"):
        runpy.run_path("make.py")


def test_case_tiff_orientation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its siblings, in four formats, are in `test_damaged.py`."""
    made("tiff_orientation", tmp_path, monkeypatch)
    assert capsys.readouterr().out.split("\n") == [
        *(f"{side} right" for side in range(1, 9)),
        "",
    ]


def test_case_wide_text_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six texts of 3 MB, and two longer ones of other words, need no more than such texts do."""
    folder = made("wide_text_refused", tmp_path, monkeypatch)
    (folder / "txt" / "b").mkdir()
    for i in range(2):
        (folder / "txt" / "b" / f"{i}.txt").write_text(f"word{i} " * 600_000, "utf-8")
    said = command(folder, "prepare", "recipe.yaml", "--set", "resources.memory=1GiB")
    assert said["rows"]["in"] == 8 and said["rows"]["quarantined"] == 0


KILLED = """
import os, sys
import penstock
from penstock.core.events import Events

def hold(event):
    if os.path.isdir("store/.staging") and os.listdir("store/.staging"):
        print("staged", flush=True)
        sys.stdin.read()

penstock.prepare("recipe.yaml", store="store", events=Events(hold))
"""
"""Prepares, and waits at the first word that it says while something is staged."""


def test_case_staging_left(tmp_path: Path) -> None:
    """The case has no file: what `kill -9` leaves of a preparation is gone after the next."""
    if not CASES.is_dir():
        pytest.skip(
            "the inputs that failed once (../shared/cases) are not on this machine"
        )
    rows = [f"{i},{i * 7 % 13},{'yes' if i % 3 else 'no'}" for i in range(5_000)]
    (tmp_path / "rows.csv").write_text("\n".join(["id,x,y", *rows]) + "\n", "utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "source: {type: files, path: rows.csv}\nderive: {z: x + 1}\n", "utf-8"
    )
    staging = tmp_path / "store" / ".staging"
    words = [sys.executable, "-c", KILLED]
    with subprocess.Popen(
        words, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == "staged\n"
        finally:
            child.kill()
    assert list(staging.iterdir())
    dataset = penstock.prepare(tmp_path / "recipe.yaml", store=tmp_path / "store")
    assert dataset.counts["in"] == 5_000 and accounted(dataset)
    assert not staging.exists() or not list(staging.iterdir())


def test_every_case_has_its_test() -> None:
    if not CASES.is_dir():
        pytest.skip(
            "the inputs that failed once (../shared/cases) are not on this machine"
        )
    folders = {path.name for path in CASES.iterdir() if path.is_dir()} - LATER
    tests = set(
        re.findall(
            r"^def test_case_(\w+)\(", Path(__file__).read_text("utf-8"), re.MULTILINE
        )
    )
    assert folders and folders <= tests, sorted(folders - tests)
