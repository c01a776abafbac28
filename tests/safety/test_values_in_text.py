"""A number that is none is no word, and text in a format means one moment, whatever stands beside it."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.core.events import Events
from penstock.formats.typed import convert
from penstock.parts.features._raw import texts
from penstock.parts.sources.files import Files
from tests.safety.valued import DAY, NOON


@pytest.mark.parametrize(
    "kind",
    [
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.list_(pa.float64()),
        pa.dictionary(pa.int8(), pa.float64()),
    ],
)
def test_a_number_that_is_none_is_no_word(kind):
    """While the text "NaN" is one."""
    from penstock.formats.learnt import fit
    from penstock.formats.typed import to_text

    if pa.types.is_list(kind):
        array = pa.array([[math.nan, 1.0], None, [None]], kind)
        assert convert(array, pa.list_(pa.string()), "c").to_pylist() == [
            [None, "1"],
            None,
            [None],
        ]
        return
    plain = pa.array(
        [math.nan, 1.0, None, math.inf, -math.inf, 0.5], pa.float64(), from_pandas=False
    )
    array = (
        plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
    )
    for found in (
        to_text(array),
        convert(array, pa.string(), "c"),
        fit(array, pa.string())[0],
        texts(array if not pa.types.is_dictionary(kind) else plain)[0],
    ):
        assert found.to_pylist() == [None, "1", None, "inf", "-inf", "0.5"]
    assert fit(pa.array(["NaN", "x"]), pa.string())[0].to_pylist() == ["NaN", "x"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "0.5", "7.0"])
def test_a_number_among_texts_of_json_is_the_text_of_a_column_of_numbers(value, tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"c": "x", "l": ["x"]}\n{"c": ' + value + ', "l": [' + value + "]}\n"
    )
    pq.write_table(pa.table({"c": ["x"], "l": [["x"]]}), tmp_path / "0.parquet")
    number = float(value.replace("Infinity", "inf"))
    pq.write_table(
        pa.table(
            {"c": pa.array([number], pa.float64(), from_pandas=False), "l": [[number]]}
        ),
        tmp_path / "1.parquet",
    )
    rows = []
    for path in ("a.jsonl", "*.parquet"):
        source = Files(path=str(tmp_path / path))
        made_of = source.extract(
            source.snapshot(tmp_path),
            tmp_path / "scratch",
            memory_bytes=256 << 20,
            events=Events(),
        )
        rows.append(pq.read_table(made_of.parquet, columns=["c", "l"]).to_pylist())
    expected = texts(pa.array([number], pa.float64(), from_pandas=False))[0][0].as_py()
    assert (
        rows[0] == rows[1] == [{"c": "x", "l": ["x"]}, {"c": expected, "l": [expected]}]
    )


def moments_of(tmp_path: Path, texts: list[str], **words: str) -> list[datetime | None]:
    """What a timestamp feature reads of a CSV file."""
    from penstock.core.events import Events
    from penstock.parts.features.timestamp import Timestamp
    from penstock.parts.sources.files import Files

    (tmp_path / "t.csv").write_text(
        "t\n" + "".join(f"{text}\n" for text in texts), "utf-8"
    )
    source = Files(path=str(tmp_path / "t.csv"))
    made = source.extract(
        source.snapshot(tmp_path),
        tmp_path / "scratch",
        memory_bytes=256 << 20,
        events=Events(),
    )
    moments, _ = Timestamp(**words).accept(
        [pq.read_table(made.parquet, columns=["t"])["t"]]
    )
    return moments.to_pylist()


@pytest.mark.parametrize(
    "format",
    [
        "%d.%m.%Y",
        "%Y%m%d",
        "%d%m%Y",
        "%Y",
        "%m/%d/%y %H:%M",
        "%Y-%m-%dT%H:%M:%S%z",
        "%Y%m%d%H%M%S%f",
    ],
)
def test_text_in_a_format_means_the_same_beside_whatever_stands_with_it(tmp_path, format):
    """A file of such text alone may be numbers, or moments; with another text in it, it is text."""
    texts = [
        f"{DAY + timedelta(days=40 * row, hours=row):{format}}".replace("%z", "")
        for row in range(12)
    ]
    texts = [text + "+0000" if format.endswith("%z") else text for text in texts]
    wanted = [
        (moment := datetime.strptime(text, format)).replace(tzinfo=moment.tzinfo or UTC)
        for text in texts
    ]
    assert moments_of(tmp_path, texts, format=format) == wanted
    assert moments_of(tmp_path, [*texts, "x"], format=format) == [*wanted, None]
    assert [moments_of(tmp_path, [text], format=format)[0] for text in texts] == wanted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"format": "%Y-%d-%m"}, "which ISO 8601 reads otherwise"),
        ({"format": "%Y-%m-%d %I:%M"}, "which ISO 8601 reads otherwise"),
        ({"format": "%Y-%m-%dT%H:%M:%S+01:00"}, "which ISO 8601 reads otherwise"),
        ({"format": "%Q"}, "is not understood"),
        ({"format": "%Y%m%d", "unit": "s"}, "both read whole numbers"),
    ],
)
def test_a_format_that_could_be_read_in_two_ways_is_refused(words, said):
    from penstock.parts.features.timestamp import Timestamp

    with pytest.raises(ValueError, match=said):
        Timestamp(**words)


def test_what_a_format_cannot_say_is_refused():
    from penstock.parts.features.timestamp import Timestamp

    _, refused = Timestamp(format="%H:%M").accept([pa.array([NOON, None])])
    assert refused.rows.tolist() == [0] and "has no year" in refused.reasons[0]
    # a zero is gone: the 1st or the 11th
    lost, refused = Timestamp(format="%d%m%Y").accept([pa.array([1112024, 11112024])])
    assert (
        lost.to_pylist() == [None, datetime(2024, 11, 11, tzinfo=UTC)]
        and "1112024" in refused.reasons[0]
    )
