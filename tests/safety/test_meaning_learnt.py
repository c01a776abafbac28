"""What a bundle learnt of its data decides how every later file is read."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock.core.errors import UserError
from penstock.formats.learnt import fit
from tests.safety.meanings import VALUES

WORDS = [
    *VALUES,
    "0",
    "-0",
    "7",
    "7.0",
    "007",
    "7.50",
    "1E5",
    "TRUE",
    "False",
    "nan",
    "inf",
    "2024-01-06 10:00:00",
    "12345678901234567890",
    "-1",
    ".5",
    "+5",
]
KINDS = [
    pa.int64(),
    pa.float64(),
    pa.bool_(),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.string(),
]


def fitted(array: pa.Array, kind: pa.DataType) -> list[tuple[Any, Any]]:
    good, others = fit(array, kind)
    assert good.type.equals(kind) and len(good) == len(array)
    beside = [None] * len(array) if others is None else others.to_pylist()
    return [(repr(a), b) for a, b in zip(good.to_pylist(), beside, strict=True)]


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(
        st.sampled_from(WORDS)
        | st.none()
        | st.text(alphabet="-+.0123456789eE", max_size=6),
        min_size=1,
        max_size=8,
    ),
    kind=st.sampled_from(KINDS),
)
def test_a_text_is_read_alone_as_among_others(
    texts: list[str | None], kind: pa.DataType
) -> None:
    together = fitted(pa.array(texts, pa.string()), kind)
    assert together == [fitted(pa.array([text], pa.string()), kind)[0] for text in texts]
    for text, (good, other) in zip(texts, together, strict=True):
        assert (
            text is None or good != "None" or other == text or text.lower() == "nan"
        )  # nothing is lost


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("7", pa.int64(), 7),
        ("7.0", pa.int64(), 7),
        ("1e3", pa.int64(), 1000),
        ("007", pa.int64(), None),
        ("7.5", pa.int64(), None),
        ("9007199254740993", pa.int64(), 9007199254740993),
        ("9007199254740993", pa.float64(), None),
        ("1E5", pa.float64(), 100000.0),
        ("01", pa.float64(), None),
        ("+5", pa.float64(), None),
        ("TRUE", pa.bool_(), True),
        ("0", pa.bool_(), False),
        ("yes", pa.bool_(), None),
        ("never", pa.timestamp("us"), None),
    ],
)
def test_a_text_is_of_the_learnt_type_or_stays_a_text(
    text: str, kind: pa.DataType, value: Any
) -> None:
    good, others = fit(pa.array([text]), kind)
    assert good[0].as_py() == value and (
        (others is None) if value is not None else others[0].as_py() == text
    )


def test_a_forced_type_understands_what_it_did_in_training() -> None:
    good, others = fit(pa.array(["007", "+5", "A7"]), pa.int64(), forced="integer")
    assert good.to_pylist() == [7, 5, None] and others.to_pylist() == [None, None, "A7"]
    assert fit(pa.array(["yes", "N"]), pa.bool_(), forced="boolean")[0].to_pylist() == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("array", "kind", "good", "others"),
    [
        (pa.array([1.0, 2.5, None]), pa.int64(), [1, None, None], [None, "2.5", None]),
        (pa.array([1, 2**53 + 1]), pa.float64(), [1.0, None], [None, "9007199254740993"]),
        (pa.array([True, False]), pa.int64(), [1, 0], None),
        (pa.array([1, 0, 5]), pa.bool_(), [True, False, None], [None, None, "5"]),
        (pa.array([1.0, 1.5]), pa.string(), ["1", "1.5"], None),
        (pa.array([float("nan"), 3.0]), pa.int64(), [None, 3], None),
        (pa.array([1_700_000_000]), pa.timestamp("us"), [None], ["1700000000"]),
        (pa.array(["7", "x"]).dictionary_encode(), pa.int64(), [7, None], [None, "x"]),
    ],
)
def test_another_type_than_was_learnt(
    array: pa.Array, kind: pa.DataType, good: list[Any], others: list[Any] | None
) -> None:
    found, beside = fit(array, kind)
    assert (
        found.to_pylist() == good
        and (None if beside is None else beside.to_pylist()) == others
    )


TABLE_ROWS = 240


def learnt_table() -> pa.Table:
    """Columns of every type that text may be taken for; each tells the target something."""
    import random

    chance = random.Random(4)
    rows = [
        {
            "i": chance.choice([1, 2, 7]),
            "f": chance.choice([0.5, 1.0, 1000.0]),
            "b": chance.random() < 0.5,
            "t": dt.datetime(2024, 1, chance.randint(1, 6)),
            "s": chance.choice(["1.50", "007", "1e5", "TRUE", "NA", "2024-01-05", "x"]),
            "n": chance.randint(0, 9),
            "d": chance.choice(["1", "2", "12"]),
        }
        for _ in range(TABLE_ROWS)
    ]
    y = [
        "yes"
        if (row["i"] == 7) + row["b"] + (row["s"] in ("007", "TRUE", "NA")) >= 2
        else "no"
        for row in rows
    ]
    return (
        pa.Table.from_pylist(rows)
        .append_column("y", pa.array(y))
        .append_column("id", pa.array(range(TABLE_ROWS)))
    )


LEARNT: dict[str, Any] = {
    "name": "learnt",
    "seed": 3,
    "source": {"type": "files", "path": "lake", "na": ["?"], "rename": {"When": "t"}},
    "keep": [],
    "inputs": {
        "i": "category",
        "f": "category",
        "b": "category",
        "t": "category",
        "s": "category",
        "n": "number",
        "d": "category",
    },
    "targets": {"y": "binary"},
    "model": {"combiner": {"type": "mlp", "width": 16, "depth": 1}},
}
COLUMNS = ["i", "f", "b", "t", "s", "n", "d"]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tests.bundle import made

    return made.make(tmp_path_factory.mktemp("learnt"), LEARNT, learnt_table())[0]


def predicted(
    bundle: Any, folder: Path, name: str, text: str | bytes, **words: Any
) -> list[dict[str, Any]]:
    """What `predict` writes of a file; rows in are rows out."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    counts = penstock.predict(
        bundle,
        source={"path": str(folder / name), **words.pop("source", {})},
        output=folder / f"{name}.out.jsonl",
        **words,
    )
    lines = [
        json.loads(line)
        for line in (folder / f"{name}.out.jsonl").read_text("utf-8").splitlines()
    ]
    assert (
        counts["rows"]
        == counts["predicted"] + counts["refused"] + counts["unreadable"]
        == len(lines) + counts["unreadable"]
    )
    return lines


def share(line: dict[str, Any]) -> Any:
    return line["refused"] or round(line["y_probabilities"]["yes"], 4)


ROWS = [
    ["7", "0.5", "true", "2024-01-05", "TRUE", "3", "12"],
    ["2", "1000.0", "false", "2024-01-06", "007", "4", "1"],
    ["1", "1e3", "True", "2024-01-02T00:00:00", "1.50", "5.0", "2"],
    ["7.0", "1", "1", "2024-01-05 00:00:00", "1e5", "07", "12"],
    ["A7", "x", "Unknown", "never", "NA", "6", "9"],
    ["?", "", "?", "?", "2024-01-05", "", "?"],
    ["007", "NaN", "0", "2024-01-05", "x", "7", "1.0"],
    ["1", "0.5", "false", "2024-01-01", "NA", "not a number", "1"],
]


def as_csv(
    rows: list[list[str]], header: list[str] = COLUMNS, delimiter: str = ","
) -> str:
    return "\n".join(delimiter.join(row) for row in [header, *rows]) + "\n"


def test_no_row_changes_what_another_means(learnt: Any, tmp_path: Path) -> None:
    whole = [share(line) for line in predicted(learnt, tmp_path, "all.csv", as_csv(ROWS))]
    assert [i for i, found in enumerate(whole) if isinstance(found, str)] == [7] and len(
        set(whole)
    ) >= 6
    for i, row in enumerate(ROWS):
        assert (
            share(predicted(learnt, tmp_path, "one.csv", as_csv([row]))[0]) == whole[i]
        ), row
    back = [
        share(line)
        for line in predicted(learnt, tmp_path, "back.csv", as_csv(ROWS[::-1]))
    ]
    assert back[::-1] == whole
    for i, row in enumerate(ROWS[:-1]):
        record = {
            name: None if value == "" else value
            for name, value in zip(COLUMNS, row, strict=True)
        }
        # over HTTP, from Python
        assert round(learnt.predict([record])[0]["y_probabilities"]["yes"], 4) == whole[i]
    many = learnt.predict([dict(zip(COLUMNS, row, strict=True)) for row in ROWS[:-1]])
    assert [round(one["y_probabilities"]["yes"], 4) for one in many] == whole[:-1]


def test_a_header_that_comes_again_is_counted_and_answered_by_nothing(
    learnt: Any, tmp_path: Path
) -> None:
    alone = [share(line) for line in predicted(learnt, tmp_path, "one.csv", as_csv(ROWS))]
    assert [
        share(line)
        for line in predicted(learnt, tmp_path, "two.csv", as_csv(ROWS) + as_csv(ROWS))
    ] == alone * 2


def test_the_training_rows_written_as_csv_are_the_training_rows(
    learnt: Any, tmp_path: Path
) -> None:
    table = learnt_table().slice(0, 40)
    wanted = [
        round(one["yes"], 4)
        for one in learnt.predict(table)["y_probabilities"].to_pylist()
    ]
    rows = [
        ["" if v is None else str(v) for v in row.values()]
        for row in table.select(COLUMNS).to_pylist()
    ]
    assert [
        share(line) for line in predicted(learnt, tmp_path, "rows.csv", as_csv(rows))
    ] == wanted
    pq.write_table(table, tmp_path / "rows.parquet")
    assert [
        share(line)
        for line in predicted(
            learnt, tmp_path, "rows.parquet", (tmp_path / "rows.parquet").read_bytes()
        )
    ] == wanted
    lines = "".join(
        json.dumps({**row, "t": str(row["t"])}) + "\n" for row in table.to_pylist()
    )
    assert [
        share(line) for line in predicted(learnt, tmp_path, "rows.jsonl", lines)
    ] == wanted
    frame = table.to_pandas()
    assert [
        round(one["yes"], 4) for one in learnt.predict(frame)["y_probabilities"]
    ] == wanted
    texts = frame.astype(dict.fromkeys(COLUMNS, object)).map(str)
    assert [
        round(one["yes"], 4) for one in learnt.predict(texts)["y_probabilities"]
    ] == wanted


JSON_VALUES = [
    1,
    7,
    7.0,
    "7",
    "007",
    2.5,
    True,
    False,
    "true",
    None,
    "x",
    1000,
    "1e3",
    "2024-01-05",
    "1.50",
]


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(
        st.lists(
            st.sampled_from(JSON_VALUES), min_size=len(COLUMNS), max_size=len(COLUMNS)
        ),
        min_size=2,
        max_size=3,
    )
)
def test_json_lines_alone_as_together(
    learnt: Any, tmp_path_factory: pytest.TempPathFactory, rows: list[list[Any]]
) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    records = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    texts = [json.dumps(record) + "\n" for record in records]
    whole = [
        share(line) for line in predicted(learnt, folder, "all.jsonl", "".join(texts))
    ]
    assert whole == [
        share(predicted(learnt, folder, "one.jsonl", text)[0]) for text in texts
    ]
    for record, found in zip(records, whole, strict=True):
        if isinstance(found, str):
            with pytest.raises(UserError):
                learnt.predict([record])
        else:
            assert (
                round(learnt.predict([record])[0]["y_probabilities"]["yes"], 4) == found
            ), record


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (as_csv(ROWS[:2], delimiter=";"), None),
        (as_csv(ROWS[:2], delimiter="|"), None),  # another delimiter
        # the name that files had
        (
            as_csv(
                ROWS[:2], header=[name if name != "t" else "When" for name in COLUMNS]
            ),
            None,
        ),
        (
            as_csv(ROWS[:2], header=[name.upper() for name in COLUMNS]),
            None,
        ),  # other letters
        (
            as_csv([["x", "x", "x", "x", "s", "1", "i"], *ROWS[:2]]),
            None,
        ),  # values that are names of columns
        (
            "\n".join(",".join(row) for row in ROWS[:2]) + "\n",
            "Columns found: 7",
        ),  # no names at all
    ],
)
def test_the_names_that_were_learnt_tell_the_header(
    learnt: Any, tmp_path: Path, text: str, said: str | None
) -> None:
    if said is not None:
        with pytest.raises(UserError, match=said):
            predicted(learnt, tmp_path, "new.csv", text)
        return
    wanted = [
        share(line) for line in predicted(learnt, tmp_path, "plain.csv", as_csv(ROWS[:2]))
    ]
    assert [share(line) for line in predicted(learnt, tmp_path, "new.csv", text)][
        -2:
    ] == wanted


def test_the_truth_is_kept_beside_the_answer(learnt: Any, tmp_path: Path) -> None:
    rows = [
        [*row, truth, id]
        for row, truth, id in zip(ROWS[:2], ("no", "yes"), ("7", "B8"), strict=True)
    ]
    lines = predicted(
        learnt,
        tmp_path,
        "truth.csv",
        as_csv(rows, [*COLUMNS, "y", "id"]),
        keep=["y", "id"],
    )
    assert [line["y_kept"] for line in lines] == ["no", "yes"] and all(
        line["y"] in ("yes", "no") for line in lines
    )
    # learnt as whole numbers: one that is none makes no value vanish
    assert [line["id"] for line in lines] == ["7", "B8"]
    assert (
        learnt.predict(
            [{**dict(zip(COLUMNS, ROWS[0], strict=True)), "y": "no"}], keep=["y"]
        )[0]["y_kept"]
        == "no"
    )


@pytest.mark.parametrize("text", ["", "1,0.5,true,2024-01-05,x,3\n"])
def test_a_file_that_lacks_a_column_says_so_with_rows_and_without(
    learnt: Any, tmp_path: Path, text: str
) -> None:
    with pytest.raises(
        UserError,
        match=r"lack inputs of the model: d: is required.* Columns found: i, f, b, t, s, n\.",
    ):
        predicted(learnt, tmp_path, "new.csv", ",".join(COLUMNS[:-1]) + "\n" + text)


def test_no_rows_have_the_columns_of_rows(learnt: Any, tmp_path: Path) -> None:
    for name, rows in (("one.csv", ROWS[:1]), ("none.csv", [])):
        penstock.predict(
            learnt,
            source=_written(tmp_path / name, as_csv(rows)),
            output=tmp_path / f"{name}.out.csv",
            keep=["n"],
        )
    one, none = (
        (tmp_path / f"{name}.csv.out.csv").read_text("utf-8").splitlines()
        for name in ("one", "none")
    )
    assert none == one[:1] and len(one) == 2


def _written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_an_object_of_another_shape_is_refused_alone(learnt: Any, tmp_path: Path) -> None:
    rows = learnt_table().slice(0, 3).to_pylist()
    good = "".join(json.dumps({**row, "t": str(row["t"])}) + "\n" for row in rows)
    odd = (
        '{"i": {"a": 1}, "f": 1, "b": true, "t": null, "s": "x", "n": 1, "d": "1"}\n{"i": [1], "f": 1, "b":'
        ' true, "t": null, "s": "x", "n": 1, "d": "1"}\n'
    )
    wanted = [share(line) for line in predicted(learnt, tmp_path, "good.jsonl", good)]
    assert [
        share(line) for line in predicted(learnt, tmp_path, "odd.jsonl", odd + good)
    ] == wanted
    reasons = (tmp_path / "odd.jsonl.out.jsonl.unreadable.jsonl").read_text("utf-8")
    assert (
        "expected one value in 'i', found an object" in reasons
        and "found a list" in reasons
    )
