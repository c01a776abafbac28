"""A format that Penstock does not know is one file beside the recipe: prepared, trained on, predicted with.

The file and the recipe are those of docs/extending.md, so that what the page shows is what runs.
"""

from __future__ import annotations

import gzip
import random
import re
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import penstock
from penstock.cli import main
from penstock.contracts.foreign import no_foreign_code
from penstock.contracts.learnt import Learnt
from penstock.core.errors import RecipeError, SourceError
from penstock.core.events import Events
from penstock.parts.sources.files import Files

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
ROWS = 240


def _blocks() -> dict[str, str]:
    """By the file that each is for, the page's code under 'A reader of your own'."""
    section = (
        PAGE.read_text("utf-8").split("## A reader of your own")[1].split("\n## ")[0]
    )
    blocks = re.findall(r"```(\w*)\n(.*?)```", section, re.DOTALL)
    named = {}
    for language, text in blocks:
        first = text.split("\n", 1)[0]
        named[first.removeprefix("# ") if first.startswith("# ") else language] = text
    return named


def _lines(seed: int, rows: int) -> list[str]:
    chance = random.Random(seed)
    lines = []
    for _ in range(rows):
        area, city = chance.randint(20, 200), chance.choice(["Oslo", "Bergen"])
        fields = [
            f"area={area}",
            f"dear={'yes' if area + 40 * (city == 'Oslo') > 120 else 'no'}",
        ]
        lines.append(
            ";".join([*fields, f"city={city}"] if chance.random() > 0.1 else fields)
        )
    return lines


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with the page's reader and recipe, and a lake of such files, one line of it torn."""
    folder = tmp_path_factory.mktemp("flats")
    blocks = _blocks()
    (folder / "acme").mkdir()
    (folder / "acme" / "kv.py").write_text(blocks["acme/kv.py"], "utf-8")
    (folder / "recipe.yaml").write_text(blocks["recipe.yaml"], "utf-8")
    (folder / "lake").mkdir()
    for part in range(2):
        lines = _lines(part, ROWS // 2)
        if part:
            lines.insert(7, "torn")
        (folder / "lake" / f"part-{part}.kv").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "new.kv").write_text("\n".join([*_lines(9, 20), "torn", ""]), "utf-8")
    before = set(sys.modules), list(sys.path)
    yield folder
    for name in set(sys.modules) - before[0]:
        if name.split(".")[0] == "acme":
            del sys.modules[name]
    sys.path[:] = before[1]


@pytest.fixture(scope="module")
def outcome(workshop):
    return penstock.run(workshop / "recipe.yaml", overrides=["evaluate.baselines=false"])


def test_its_rows_are_prepared_and_trained_on(outcome, workshop):
    dataset = penstock.prepare(workshop / "recipe.yaml")
    assert dataset.counts["in"] == ROWS + 1 and dataset.counts["quarantined"] == 1
    types = {field.name: str(field.type) for field in dataset.schema}
    assert (types["area"], types["city"]) == ("int64", "string")
    (bad,) = (path for path in dataset.path.glob("quarantine/*.parquet"))
    (reject,) = pq.read_table(bad).to_pylist()
    assert (reject["file"], reject["line"], reject["row"]) == ("part-1.kv", 8, "torn")
    assert outcome.report["metrics"]["test"]["dear"]["accuracy"] is not None


def test_its_bundle_reads_later_files_by_it(outcome, workshop, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    bundle = str(outcome.bundle.path)
    assert main(["predict", bundle, "new.kv", "-o", "answers.parquet", "--trust"]) == 0
    assert pq.read_table("answers.parquet").num_rows == 20
    assert "torn" in Path("answers.parquet.unreadable.jsonl").read_text("utf-8")
    assert main(["predict", bundle, "new.kv", "-o", "again.parquet"]) == 2
    said = capsys.readouterr().err
    assert "--trust" in said and "acme.kv" in said and not Path("again.parquet").exists()


def test_its_bundle_opens_and_reads_other_formats_without_trust(
    outcome, workshop, monkeypatch
):
    monkeypatch.chdir(workshop)
    Path("new.csv").write_text("area,city\n150,Oslo\n30,\n", "utf-8")
    bundle = penstock.Bundle.open(outcome.bundle.path)
    assert bundle.predict([{"area": 150, "city": "Oslo"}])[0]["dear"] in ("yes", "no")
    assert (
        penstock.predict(bundle, source="new.csv", output="csv-answers.parquet")[
            "predicted"
        ]
        == 2
    )
    with pytest.raises(SourceError, match="trust"):
        penstock.predict(bundle, source="new.kv", output="none.parquet")
    mine = {
        "path": "new.kv",
        "format": {"type": "acme.kv", "between": ";"},
    }  # the user's own words need none
    assert penstock.predict(bundle, source=mine, output="mine.parquet")["predicted"] == 20


def test_its_bundle_reads_a_folder_of_its_files(outcome, workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    Path("later").mkdir()
    shutil.copy("new.kv", "later/a.kv")
    Path("later/b.kv.gz").write_bytes(gzip.compress(Path("new.kv").read_bytes()))
    Path("later/README.md").write_text("No rows of mine.\n", "utf-8")
    bundle = penstock.Bundle.open(outcome.bundle.path, trust=True)
    made = penstock.predict(bundle, source="later", output="later.parquet")
    assert (made["predicted"], made["unreadable"]) == (40, 2)
    untrusted = penstock.Bundle.open(outcome.bundle.path)
    with pytest.raises(SourceError, match=r"Name the files themselves.*or set `format`"):
        penstock.predict(untrusted, source="later", output="none.parquet")


def _learnt(tmp_path, format, name, content):
    """The files that `name` in a folder gives, as after a bundle that learnt by `format`; read."""
    (tmp_path / name).write_bytes(content)
    source = Files.model_validate({"path": name})
    learnt = Learnt(pa.schema([("a", pa.int64())]), {"format": format})
    return source.like(learnt)


def _extracted(source, base):
    made = source.extract(
        source.snapshot(base), base / "made", memory_bytes=1 << 28, events=Events()
    )
    return made.rejected, pq.read_table(made.parquet)["a"].to_pylist()


@pytest.mark.parametrize("name", ["q.csv", "q.csv.gz", "Q.CSV.GZ"])
def test_its_own_ending_holds_before_the_built_in_one_packed_or_not(
    workshop, tmp_path, name
):
    sys.path.append(str(workshop))
    from acme.kv import KeyValue

    class Mine(KeyValue):
        endings = (".csv",)

    content = b"a=1\na=2\n"
    packed = gzip.compress(content) if name.lower().endswith(".gz") else content
    assert _extracted(_learnt(tmp_path, Mine(), name, packed), tmp_path) == (0, [1, 2])


@pytest.mark.parametrize(
    ("format", "text"),
    [
        (
            "acme.nope",
            r"'acme\.nope', which cannot be loaded: no reader is called 'acme\.nope'\. Is 'acme'"
            r" importable from here\? Correct that, or set `format`\.$",
        ),
        (
            "csvv",
            r"'csvv', which cannot be loaded: no reader is called 'csvv'\. Did you mean 'csv'\?",
        ),
        (
            {"type": "csv", "nope": 1},
            r"'csv', which cannot be loaded: nope: .*[^.]\. Correct that, or set",
        ),
    ],
)
def test_what_cannot_be_loaded_is_no_matter_of_trust(tmp_path, format, text):
    source = _learnt(tmp_path, format, "q.any", b"a=1\n")
    with pytest.raises(SourceError, match=text) as refused:
        _extracted(source, tmp_path)
    assert "trust" not in str(refused.value)


def test_what_is_not_trusted_is_told_as_that(tmp_path):
    with no_foreign_code():
        source = _learnt(tmp_path, "acme.kv", "q.any", b"a=1\n")
    with pytest.raises(SourceError) as refused:
        _extracted(source, tmp_path)
    assert str(refused.value) == (
        "q.any: the data that the model learnt from was read by 'acme.kv', a reader that did not come with"
        " Penstock, and so would this file be. If you trust where the model came from, give --trust"
        " (trust=True); or set `format`."
    )


def test_init_looks_at_a_head_of_its_files(workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    source = {"path": "lake/*.kv", "format": {"type": "acme.kv", "between": ";"}}
    recipe = yaml.safe_load(penstock.init(source, target="dear", rows=50))
    assert recipe["source"]["format"] == source["format"]
    assert set(recipe["inputs"]) == {"area", "city"} and set(recipe["targets"]) == {
        "dear"
    }


def test_its_page_keeps_the_laws(workshop):
    sys.path.append(str(workshop))
    space: dict[str, object] = {}
    exec(compile(_blocks()["python"], "docs/extending.md", "exec"), space)
    space["test_kv_keeps_the_laws"]()


def test_its_mistakes_are_told(workshop):
    with pytest.raises(
        RecipeError, match=r"source\.format\.betwen.*Did you mean 'between'"
    ):
        penstock.check(
            workshop / "recipe.yaml", overrides=["source.format.betwen=1"], data=False
        )
    with pytest.raises(RecipeError, match=r"no reader is called 'acme\.kw'"):
        penstock.check(
            workshop / "recipe.yaml",
            overrides=["source.format={type: acme.kw}"],
            data=False,
        )


def test_on_the_shelf_the_same_file_is_a_format_like_any_other(
    workshop, monkeypatch, tmp_path
):
    """One new file, and nothing else: `format: kv`, or nothing at all, since its ending names it."""
    from penstock.formats import shelf
    from penstock.parts import readers

    on_shelf = tmp_path / "shelf"
    on_shelf.mkdir()
    shutil.copy(workshop / "acme" / "kv.py", on_shelf / "kv.py")
    monkeypatch.setattr(readers, "__path__", [*readers.__path__, str(on_shelf)])
    caches = (shelf.readers, shelf.endings)
    for cached in caches:
        cached.cache_clear()
    try:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.kv").write_text("a=1 b=x\na=2 b=y\n", "utf-8")
        made = penstock.prepare(
            {"source": {"type": "files", "path": str(tmp_path / "data")}},
            store=tmp_path / "store",
        )
        assert made.counts["in"] == 2 and {"a", "b"} <= set(made.schema.names)
    finally:
        sys.modules.pop("penstock.parts.readers.kv", None)
        for cached in caches:
            cached.cache_clear()
