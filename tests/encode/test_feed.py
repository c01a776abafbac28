from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.contracts.data import REJECT_SCHEMA
from penstock.core.errors import ContractError, RecipeError, StoreError
from penstock.core.events import Event, Events
from penstock.core.store import Store
from penstock.encode.feed import Feed, batch_size_for, feed_id, write_feed
from penstock.shards.row_ids import row_id_text
from tests.data.fakes import FakeDataset, ids, recipe

WORDS: dict[str, Any] = {
    "inputs": {"x": "number", "job": "category"},
    "targets": {"y": "binary"},
}


def rows(n: int, seed: int = 0, **columns: Any) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "x": rng.normal(50, 10, n),
            "job": rng.choice(["cook", "smith", "clerk"], n),
            "y": rng.choice(["no", "yes"], n, p=[0.7, 0.3]),
            **columns,
        }
    )


def write(
    dataset: FakeDataset, folder: Path, heard: list[Event] | None = None, **words: Any
) -> Feed:
    return write_feed(
        recipe(**{**WORDS, **words}),
        dataset,
        Store(folder),
        Events(*([heard.append] if heard is not None else [])),
    )  # type: ignore[arg-type]


def test_every_row_is_encoded_in_stored_order_and_fitted_on_train_alone(
    tmp_path: Path,
) -> None:
    train = rows(2_000)
    dataset = FakeDataset(
        {
            "train": train,
            "validation": rows(100, 1, x=np.full(100, 1e6)),
            "test": rows(50, 2),
        }
    )
    heard: list[Event] = []
    feed = write(dataset, tmp_path, heard)
    assert (
        feed.rows == {"train": 2_000, "validation": 100, "test": 50}
        and feed.quarantined == 0
        and feed.reasons == {}
    )
    assert feed.dataset == dataset.reference and feed.id == feed_id(
        recipe(**WORDS), dataset
    )  # type: ignore[arg-type]
    assert feed.encoding.fitted["x"]["mean"] == pytest.approx(
        np.mean(train["x"].to_numpy()), rel=1e-12
    )
    found = feed.shards("train").gather(np.arange(2_000))
    assert row_id_text(found["row_id"]) == ids("train", 2_000).to_pylist()
    expected = feed.encoding.encode(feed.encoding.accept(train, targets=True))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert [e.fields["text"] for e in heard if e.name == "said"] == [
        "targets.y positive is 'yes', the word that means yes; declare `positive` to choose otherwise"
    ]
    assert {e.fields["stage"] for e in heard if e.name == "progress"} == {"fit", "encode"}


def test_a_third_value_of_a_binary_input_is_quarantined_with_the_two(
    tmp_path: Path,
) -> None:
    words = {"inputs": {"x": "number", "member": "binary"}}
    train = rows(200, member=["yes", "no"] * 100)
    test = rows(10, 1, member=["maybe", "2", "YES", None, *["no"] * 6])
    feed = write(FakeDataset({"train": train, "test": test}), tmp_path, **words)
    assert feed.quarantined_by_split == {"train": 0, "validation": 0, "test": 2}
    two = "is neither 'no' nor 'yes', the two values of the training split"
    assert feed.reasons == {f"member: 'maybe' {two}": 1, f"member: '2' {two}": 1}


def test_rows_that_cannot_be_encoded_are_quarantined_never_lost(tmp_path: Path) -> None:
    train = rows(
        1_000,
        x=[str(i) if i % 100 else "oops" for i in range(1_000)],
        y=[None if i % 50 == 7 else "yes" if i % 3 else "no" for i in range(1_000)],
    )
    test = rows(30, y=["maybe" if i < 4 else "no" for i in range(30)], x=["1"] * 30)
    heard: list[Event] = []
    dataset = FakeDataset({"train": train, "test": test})
    feed = write(dataset, tmp_path, heard)
    assert feed.quarantined_by_split == {"train": 30, "validation": 0, "test": 4}
    assert {
        split: feed.rows[split] + feed.quarantined_by_split[split] for split in feed.rows
    } == {split: dataset.counts[split] for split in feed.rows}
    assert feed.reasons == {
        "y: target is missing": 20,
        "x: 'oops' is not a number": 10,
        "y: 'maybe' is neither 'no' nor 'yes', the two classes of the training split": 4,
    }
    entries = pq.read_table(feed.quarantine)
    assert (
        entries.schema.equals(REJECT_SCHEMA)
        and len(entries) == 34
        and set(entries["stage"].to_pylist()) == {"feature"}
    )
    assert (
        entries["row_id"][0].as_py() == ids("train", 1)[0].as_py()
        and '"x": "oops"' in entries["row"][0].as_py()
    )
    kept = set(row_id_text(feed.shards("train").gather(np.arange(970))["row_id"]))
    assert kept | set(entries["row_id"].to_pylist()) >= set(
        ids("train", 1_000).to_pylist()
    ) and not kept & set(entries["row_id"].to_pylist())
    assert [e.name for e in heard if e.name == "warned"] == ["warned"]


def test_a_feed_is_written_once_and_opened_again(tmp_path: Path) -> None:
    dataset = FakeDataset({"train": rows(100)})
    feed = write(dataset, tmp_path)
    stamp = (feed.path / "manifest.json").stat().st_mtime_ns
    again = write(dataset, tmp_path)
    assert (
        again.id == feed.id and (again.path / "manifest.json").stat().st_mtime_ns == stamp
    )
    assert Feed.open(Store(tmp_path), id=feed.id).encoding == feed.encoding
    with pytest.raises(StoreError, match="not in the store"):
        Feed.open(Store(tmp_path), id="0" * 16)
    with pytest.raises(StoreError, match="splits train, validation, test"):
        feed.shards("tests")


def test_its_id_follows_what_is_declared_of_features_and_the_dataset() -> None:
    one = FakeDataset({"train": rows(10)})
    base = feed_id(recipe(**WORDS), one)  # type: ignore[arg-type]
    assert base == feed_id(recipe(**WORDS, train={"epochs": 3}, seed=9), one)  # type: ignore[arg-type]
    others = [
        feed_id(recipe(**WORDS), FakeDataset({"train": rows(10)}, id="f" * 16)),  # type: ignore[arg-type]
        feed_id(recipe(**{**WORDS, "inputs": {"job": "category", "x": "number"}}), one),
        feed_id(
            recipe(
                **{
                    **WORDS,
                    "inputs": {
                        "x": {"type": "number", "missing": "zero"},
                        "job": "category",
                    },
                }
            ),
            one,
        ),  # type: ignore[arg-type]
        feed_id(recipe(**WORDS, weight="x"), one),  # type: ignore[arg-type]
    ]
    assert len({base, *others}) == 5


def test_columns_that_are_not_there_are_all_named_with_a_guess(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        write(
            FakeDataset({"train": rows(10)}),
            tmp_path,
            inputs={"x": "number", "jbo": "category"},
            targets={"income": "binary"},
            weight="w",
        )
    assert [str(p) for p in caught.value.problems] == [
        "inputs.jbo: reads the column 'jbo', which the data lacks. Did you mean 'job'?",
        "targets.income: reads the column 'income', which the data lacks.",
        "weight: is the column 'w', which the data lacks.",
    ]
    assert not (tmp_path / "feeds").exists()


def test_columns_that_cannot_be_learnt_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as caught:
        write(FakeDataset({"train": rows(10, x=pa.nulls(10), y=["no"] * 10)}), tmp_path)
    assert "2 columns cannot be learnt from" in caught.value.message
    assert (
        "inputs.x is missing in every row" in caught.value.message
        and "targets.y is a target with one class, 'no', in all 10 rows"
        in caught.value.message
    )


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        (
            {"y": pa.nulls(10, pa.string())},
            r"every one of the 10 rows.*\n  - y: target is missing \(10 rows\)",
        ),
        ({"x": ["oops"] * 10}, r"- x: 'oops' is not a number \(10 rows\)"),
    ],
)
def test_nothing_left_to_learn_from_lists_the_reasons(
    tmp_path: Path, columns: dict[str, Any], match: str
) -> None:
    with pytest.raises(ContractError, match=match):
        write(FakeDataset({"train": rows(10, **columns)}), tmp_path)
    assert not (tmp_path / "feeds").exists()


def test_no_rows_and_no_weight_are_told(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="the training split has no rows"):
        write(FakeDataset({"train": rows(10).slice(0, 0)}), tmp_path)
    with pytest.raises(ContractError, match="the weight 'w' is 0 in every row"):
        write(FakeDataset({"train": rows(10, w=[0] * 10)}), tmp_path, weight="w")


def test_weights_are_stored(tmp_path: Path) -> None:
    feed = write(
        FakeDataset({"train": rows(4, w=[1, 2, None, 0], y=["yes", "no", "no", "no"])}),
        tmp_path,
        weight="w",
    )
    assert feed.shards("train").gather(np.arange(3))["weight"].tolist() == [
        1,
        2,
        0,
    ] and feed.reasons == {"w: weight is missing": 1}


def test_a_dataset_that_changed_is_noticed_and_nothing_is_kept(tmp_path: Path) -> None:
    dataset = FakeDataset({"train": rows(10), "test": rows(5)})
    dataset.counts["test"] = 6
    with pytest.raises(StoreError, match="should have 6 rows in test, but has 5"):
        write(dataset, tmp_path)
    assert not (tmp_path / "feeds").exists()


@pytest.mark.parametrize(
    ("n", "size"),
    [
        (0, 32),
        (100, 32),
        (5_000, 32),
        (8_192, 64),
        (26_000, 128),
        (10**6, 1024),
        (10**9, 1024),
    ],
)
def test_the_batch_size_follows_the_data(n: int, size: int) -> None:
    assert batch_size_for(recipe(), n) == size
    assert batch_size_for(recipe(train={"batch_size": 77}), n) == 77


def test_the_same_rows_in_other_batches_are_fitted_alike(tmp_path: Path) -> None:
    table = rows(3_000)
    one, other = FakeDataset({"train": table}), FakeDataset({"train": table})
    other.splits["train"] = other.splits["train"].take(
        pa.array(np.random.default_rng(1).permutation(3_000))
    )
    assert write(one, tmp_path / "a").encoding == write(other, tmp_path / "b").encoding


def test_from_a_prepared_dataset_to_batches(tmp_path: Path) -> None:
    from penstock.prepare.prepare import prepare
    from tests.loader.flat import open_loader

    lines = [
        f"{i % 90},{'cook' if i % 3 else 'smith'},{'yes' if i % 4 == 0 else 'no' if i % 50 else ''}"
        for i in range(600)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["x,job,y", *lines]), "utf-8")
    declared = recipe(
        **{**WORDS, "source": {"type": "files", "path": str(tmp_path / "rows.csv")}}
    )
    store = Store(tmp_path / "store")
    dataset = prepare(declared, store, Events())
    feed = write_feed(declared, dataset, store, Events())
    assert {
        split: feed.rows[split] + feed.quarantined_by_split[split] for split in feed.rows
    } == {split: dataset.counts[split] for split in feed.rows}
    assert sum(dataset.counts[split] for split in feed.rows) == 600
    assert feed.quarantined == 6 and feed.reasons == {"y: target is missing": 6}, (
        "of every hundredth row the target is missing"
    )
    seen = [
        row
        for batch in open_loader(feed, batch_size=64, numpy=True)
        for row in row_id_text(batch["row_id"])
    ]
    assert len(seen) == feed.rows["train"] and set(seen) <= set(
        dataset.table("train", columns=["x"])["row_id"].to_pylist()
    )
