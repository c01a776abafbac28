"""What a value means depends on neither the machine nor the way it is stored: zone, locale, hash seed,
threads, types."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import api
from penstock.formats.typed import canonical, convert
from penstock.parts.features._raw import numbers, texts
from penstock.serve.reading import read_json
from tests.bundle import made
from tests.safety.valued import DAY, NOON

USUAL = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
ELSEWHERE = {
    "TZ": "America/St_Johns",  # half an hour off, and with summer time
    # files that are opened without an encoding are ASCII
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONHASHSEED": "4242",
    "OMP_NUM_THREADS": "2",
}
RECIPE = {
    "name": "moments",
    "seed": 1,
    "source": {"type": "files", "path": "lake.csv"},
    "derive": {
        "hour": "hour(t)",
        "day": "date_trunc('day', t)",
        "late": "t > TIMESTAMPTZ '2024-03-10 12:00:00'",
        "as_text": "strftime(t, '%Y-%m-%d %H:%M')",
        "as_date": "CAST(t AS DATE)",
        "read": "CAST(local AS TIMESTAMPTZ)",
        "part": "CAST(extract(epoch FROM t) AS BIGINT) % 86400",
    },
    "where": "t < TIMESTAMPTZ '2024-12-31 00:00:00' and hour(t) <> 3",
    "expect": {"hour": {"min": 0, "max": 22}},
    "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
    "inputs": {
        "hour": "category",
        "day": "timestamp",
        "as_text": "text",
        "as_date": "category",
        "read": "timestamp",
        "part": "number",
        "größe": "number",
        "ort": "category",
        "late": "binary",
    },
    "targets": {"ja": {"type": "binary", "positive": "yes"}},
    "model": {"combiner": {"type": "mlp", "width": 8, "depth": 1}},
    "train": {"epochs": 1, "batch_size": 64},
    "evaluate": {"bootstrap": 0, "baselines": False},
    "launcher": {"type": "local", "processes": 1, "threads": 1},
}


def lake(folder: Path) -> None:
    begin = datetime(2024, 1, 1, 0, 30, tzinfo=UTC)
    lines = ["t,local,größe,ort,ja"]
    for row in range(400):
        moment = begin + timedelta(hours=29 * row)
        places = ("Zürich", "İstanbul", "Ørsta", "ISTANBUL", "")
        late = "yes" if moment.hour > 11 else "no"
        size, place = row * 7 % 13 / 10, places[row % 5]
        lines.append(
            f"{moment:%Y-%m-%dT%H:%M:%SZ},{moment:%Y-%m-%d %H:%M:%S},{size},{place},{late}"
        )
    (folder / "lake.csv").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "recipe.json").write_text(json.dumps(RECIPE, ensure_ascii=False), "utf-8")


def penstock(folder: Path, world: dict[str, str], *arguments: str) -> dict:
    """What a command says with `--json`, in a process of its own in another world."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LC_", "LANG"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *arguments, "--json"],
        cwd=folder,
        env={**inherited, **world},
        capture_output=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-3000:]
    answer: dict = json.loads(done.stdout)
    return answer


def rows_of(path: str) -> pa.Table:
    return pq.read_table(Path(path) / "rows").sort_by("row_id")


@pytest.mark.slow
def test_the_machine_changes_nothing(tmp_path):
    """Zone, locale, hash seed and threads: the same ids, the same rows; and a bundle opens and answers
    elsewhere.
    """
    lake(tmp_path)
    here = penstock(
        tmp_path,
        USUAL,
        "run",
        "recipe.json",
        "--store",
        "here",
        "--set",
        "resources.threads=1",
    )
    there = penstock(
        tmp_path,
        ELSEWHERE,
        "prepare",
        "recipe.json",
        "--store",
        "there",
        "--set",
        "resources.threads=2",
    )
    assert there["dataset"] == here["dataset"]
    assert there["rows"] == {word: here["rows"][word] for word in there["rows"]}
    name, _, id = here["dataset"].partition("@")
    mine, theirs = (
        rows_of(str(tmp_path / "here" / "datasets" / name / id)),
        rows_of(there["path"]),
    )
    assert mine.schema.equals(theirs.schema)
    assert mine.equals(theirs)
    feed = penstock(tmp_path, ELSEWHERE, "encode", "recipe.json", "--store", "there")
    assert (
        tmp_path / "here" / "feeds" / feed["feed"] / "fitted.json"
    ).read_bytes() == Path(feed["path"], "fitted.json").read_bytes()
    answers = []
    for world, file in ((USUAL, "here.jsonl"), (ELSEWHERE, "there.jsonl")):
        said = penstock(
            tmp_path,
            world,
            "predict",
            here["bundle"],
            "lake.csv",
            "-o",
            file,
            "--store",
            "here",
        )
        # The rule on `hour` holds for later rows as well: 16 of them are at 23 o'clock.
        assert said["refused"] == 16
        answers.append((tmp_path / file).read_bytes())
    assert answers[0] == answers[1]


@given(
    st.lists(
        st.decimals(
            allow_nan=False,
            allow_infinity=False,
            places=6,
            min_value=-(10**20),
            max_value=10**20,
        ),
        min_size=1,
        max_size=20,
    )
)
def test_a_decimal_is_the_nearest_double(values):
    column = pa.array(values, pa.decimal128(38, 6))
    nearest = [float(value) for value in values]
    assert convert(column, pa.float64(), "x").to_pylist() == nearest
    assert numbers(column)[0].to_pylist() == nearest


def test_all_amounts_with_two_places_are_the_nearest_doubles():
    texts = [f"{cents // 100}.{cents % 100:02d}" for cents in range(100_000)]
    for kind in (pa.decimal128(10, 2), pa.decimal256(60, 2)):
        column = pa.array([Decimal(text) for text in texts], kind)
        assert np.array_equal(
            convert(column, pa.float64(), "x").to_numpy(),
            np.array([float(text) for text in texts]),
        )


_WHOLE = [
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
    pa.decimal128(12, 0),
]
_FLOATS = [pa.float64(), pa.decimal128(12, 3), pa.decimal256(40, 3)]
_TEXTS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
]
_MOMENTS = [pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")]
_INSTANTS = [
    pa.timestamp(unit, zone)
    for unit in ("s", "ms", "us", "ns")
    for zone in ("UTC", "America/New_York", "+05:30")
]


def stored(values: list, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(values, kind)


def read(array: pa.Array) -> pa.Array:
    """As every source gives it."""
    return convert(array, canonical(array.type), "x")


@settings(max_examples=30)
@given(st.lists(st.one_of(st.none(), st.integers(0, 100)), min_size=1, max_size=8))
def test_whole_numbers_are_the_same_in_every_width(values):
    assert all(
        read(stored(values, kind)).equals(pa.array(values, pa.int64())) for kind in _WHOLE
    )


@settings(max_examples=30)
@given(
    st.lists(
        st.one_of(st.none(), st.decimals(min_value=-99999, max_value=99999, places=3)),
        min_size=1,
        max_size=8,
    )
)
def test_numbers_are_the_same_in_every_kind(values):
    expected = pa.array(
        [None if value is None else float(value) for value in values], pa.float64()
    )
    for kind in _FLOATS:
        assert read(
            stored(
                [
                    None if v is None else float(v) if pa.types.is_floating(kind) else v
                    for v in values
                ],
                kind,
            )
        ).equals(expected)


@settings(max_examples=30)
@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=1, max_size=8))
def test_texts_are_the_same_in_every_kind(values):
    values = [None if v is None else v.encode("utf-8", "ignore").decode() for v in values]
    assert all(
        read(stored(values, kind)).equals(pa.array(values, pa.string()))
        for kind in _TEXTS
    )


@settings(max_examples=30)
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(
                lambda m: m.replace(microsecond=0)
            ),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_moments_are_the_same_in_every_unit_and_zone(values):
    for kind in _MOMENTS:
        assert read(stored(values, kind)).equals(pa.array(values, pa.timestamp("us")))
    instants = [None if v is None else v.replace(tzinfo=UTC) for v in values]
    for kind in _INSTANTS:
        assert read(pa.array(instants, pa.timestamp("us", "UTC")).cast(kind)).equals(
            pa.array(instants, pa.timestamp("us", "UTC"))
        )


def test_a_float_of_32_bits_is_spelt_as_the_double_it_is():

    column = pa.array([1.1, 3.0, None], pa.float32())
    assert texts(column)[0].equals(texts(pc.cast(column, pa.float64()))[0])


_ASKED = {
    "name": "asked",
    "seed": 3,
    "source": {"type": "files", "path": "lake"},
    "keep": [],
    "inputs": {
        "whole": "category",
        "part": "category",
        "truth": "category",
        "flag": "binary",
        "naive": "category",
        "zoned": "category",
        "moment": {"type": "timestamp", "format": "%d.%m.%Y"},
        "written": {"type": "timestamp", "format": "%d.%m.%Y"},
        "digits": {"type": "timestamp", "format": "%Y%m%d"},
        "text": "category",
        "words": "text",
        "many": {"type": "set", "delimiter": ";"},
        "size": "number",
    },
    "targets": {"y": "binary"},
    "model": {"combiner": {"type": "mlp", "width": 16, "depth": 1}},
}
_DATES = [pa.array([DAY.date()], kind) for kind in (pa.date32(), pa.date64())]
_DIGITS = [
    pa.array([20240105], kind) for kind in (pa.int32(), pa.uint64(), pa.float64())
] + [pa.array([Decimal(20240105)], pa.decimal128(9, 0))]
_WRITTEN = [
    "2024-01-06 12:30:00",
    "2024-01-06T12:30:00Z",
    "2024-01-06T12:30",
    "2024-01-06T18:00:00+05:30",
]


def numbers_as(value: int | float) -> list[pa.Array]:
    """A number that every one of these types holds exactly."""
    kinds = [pa.float16(), pa.float32(), pa.float64()]
    if isinstance(value, int):
        kinds += [
            pa.int8(),
            pa.int16(),
            pa.int32(),
            pa.int64(),
            pa.uint8(),
            pa.uint16(),
            pa.uint32(),
            pa.uint64(),
        ]
    exact = Decimal(str(value))
    decimals = [
        pa.array([exact], kind) for kind in (pa.decimal128(9, 2), pa.decimal256(60, 5))
    ]
    arrays = [
        pa.array([np.float16(value)], pa.float16())
        if kind == pa.float16()
        else pa.array([value], kind)
        for kind in kinds
    ]
    return [
        *arrays,
        *decimals,
        *(array.dictionary_encode() for array in (arrays[2], decimals[0])),
    ]


def moments_as(value: datetime) -> list[pa.Array]:
    naive = [pa.array([value], kind) for kind in _MOMENTS]
    zoned = [pa.array([value.replace(tzinfo=UTC)], kind) for kind in _INSTANTS]
    return [*naive, *zoned, naive[3].dictionary_encode()]


def texts_as(*values: str) -> list[pa.Array]:
    return [stored([value], kind) for value in values for kind in _TEXTS]


_SAME = {
    "whole": [numbers_as(7), texts_as("7", "7.0", "7.00")],
    "part": [numbers_as(0.5), texts_as("0.5", "0.50")],
    "truth": [[pa.array([True])], numbers_as(1), texts_as("true", "TRUE", "1")],
    "flag": [[pa.array([False])], numbers_as(0), texts_as("false", "False", "0")],
    "naive": [moments_as(NOON), texts_as(*_WRITTEN)],
    "zoned": [moments_as(NOON), texts_as(*_WRITTEN)],
    "moment": [
        moments_as(DAY),
        _DATES,
        [pa.array(["05.01.2024"])],
        texts_as("2024-01-05", "2024-01-05T00:00:00Z"),
    ],
    "written": [
        moments_as(DAY)[2:5],
        _DATES[:1],
        [
            pa.array([text])
            for text in ("05.01.2024", "2024-01-05", "2024-01-05T00:00:00Z")
        ],
    ],
    "digits": [
        moments_as(DAY)[3:5],
        _DATES[:1],
        _DIGITS,
        [pa.array([text]) for text in ("20240105", "2024-01-05")],
    ],
    "text": [_DATES, texts_as("2024-01-05")],
    "words": [_DATES, texts_as("2024-01-05")],
    "many": [numbers_as(7), texts_as("7")],
    "size": [numbers_as(7), texts_as("7", "7.0")],
}


def asked_table() -> pa.Table:
    rows = range(240)
    days = [DAY, NOON, datetime(2024, 1, 7)]
    picked = [days[row % 3] for row in rows]
    return pa.table(
        {
            "whole": pa.array([(1, 2, 7)[row // 3 % 3] for row in rows]),
            "part": pa.array([(0.5, 1.5, 7.0)[row // 2 % 3] for row in rows]),
            "truth": pa.array([row % 7 < 3 for row in rows]),
            "flag": pa.array([row % 5 < 2 for row in rows]),
            "naive": pa.array(picked, pa.timestamp("us")),
            "zoned": pa.array(picked[1:] + picked[:1], pa.timestamp("us", "UTC")),
            "moment": pa.array(picked[2:] + picked[:2], pa.timestamp("us")),
            "written": pa.array([f"{days[row // 5 % 3]:%d.%m.%Y}" for row in rows]),
            "digits": pa.array([int(f"{days[row // 6 % 3]:%Y%m%d}") for row in rows]),
            "size": pa.array([row % 11 for row in rows]),
            **{
                name: pa.array([("2024-01-05", "7", "x")[row // 4 % 3] for row in rows])
                for name in ("text", "words", "many")
            },
            "y": pa.array([("yes", "no")[row % 2] for row in rows]),
            "id": pa.array(rows),
        }
    )


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return made.make(tmp_path_factory.mktemp("asked"), _ASKED, asked_table())[0]


@pytest.mark.parametrize("name", list(_SAME))
def test_a_bundle_answers_a_value_alike_however_it_is_stored(asked, name, tmp_path):
    """From a Parquet file, a table, a frame, and rows of Python's own values."""
    base = asked_table().select(list(_ASKED["inputs"])).slice(0, 1)
    place = base.column_names.index(name)
    answers: dict[float, list[str]] = {}
    for array in [array for some in _SAME[name] for array in some]:
        table = base.set_column(place, name, array)
        pq.write_table(
            table, tmp_path / "rows.parquet"
        ) if array.type != pa.string_view() else None
        ways = {"table": table, "frame": table.to_pandas(), "rows": table.to_pylist()}
        given = {way: asked.predict(rows) for way, rows in ways.items()}
        shares = {
            "table": given["table"]["y_probabilities"][0].as_py()["yes"],
            "frame": given["frame"]["y_probabilities"][0]["yes"],
            "rows": given["rows"][0]["y_probabilities"]["yes"],
        }
        if array.type != pa.string_view():
            api.predict(
                asked,
                source={"path": str(tmp_path / "rows.parquet")},
                output=tmp_path / "o.jsonl",
            )
            line = json.loads((tmp_path / "o.jsonl").read_text("utf-8"))
            assert line["refused"] is None
            shares["file"] = line["y_probabilities"]["yes"]
        for way, share in shares.items():
            answers.setdefault(round(share, 5), []).append(
                f"{way}: {array.type} {array[0]}"
            )
    unseen = asked.predict(
        base.set_column(place, name, pa.array([None], base[name].type))
    )["y_probabilities"][0].as_py()["yes"]
    assert len(answers) == 1, answers
    assert abs(unseen - next(iter(answers))) > 1e-5  # what is asked is told apart at all


@pytest.mark.parametrize(
    "name",
    [
        "whole",
        "words",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("part", "truth", "text", "many", "size")
        ),
    ],
)
def test_a_number_that_is_none_is_missing_wherever_it_comes_from(asked, name, tmp_path):
    """NaN in a column of any type, from a table, a frame, Python's values, Parquet and JSON lines; and a null
    beside it.
    """
    base = asked_table().select(list(_ASKED["inputs"])).slice(0, 1)
    place = base.column_names.index(name)
    nans = [
        pa.array([np.float16("nan")], pa.float16()),
        *(pa.array([math.nan], kind, from_pandas=False) for kind in (pa.float64(),)),
    ]
    answers: dict[float | None, list[str]] = {}
    for array in [
        *nans,
        nans[-1].dictionary_encode(),
        pa.nulls(1, pa.float64()),
        pa.nulls(1, pa.string()),
    ]:
        table = base.set_column(place, name, array)
        pq.write_table(table, tmp_path / "rows.parquet")
        line = json.dumps(table.to_pylist()[0], default=str)
        (tmp_path / "rows.jsonl").write_text(f"{line}\n")
        given = {
            "table": asked.predict(table).to_pylist()[0],
            "rows": asked.predict(table.to_pylist())[0],
        }
        if not pa.types.is_dictionary(
            array.type
        ):  # pandas has no category that is missing
            given["frame"] = asked.predict(table.to_pandas()).to_dict("records")[0]
        given["body"] = asked.predict(read_json(f"[{line}]".encode()))[0]
        for file in ("rows.parquet", "rows.jsonl"):
            api.predict(
                asked, source={"path": str(tmp_path / file)}, output=tmp_path / "o.jsonl"
            )
            given[file] = json.loads((tmp_path / "o.jsonl").read_text("utf-8"))
        for way, found in given.items():
            shares = found["y_probabilities"]
            answers.setdefault(shares and round(shares["yes"], 5), []).append(
                f"{way}: {array.type} {array[0]}"
            )
    assert len(answers) == 1, answers
