"""What `init` finds out of how files are read, and the short ways to say a source."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from penstock import api
from penstock.core.errors import RecipeError, SourceError

ROWS = [(i, f"{i % 5} €", i % 2) for i in range(60)]

PROSE = "".join(
    f'The {i}th of the "men" comes in{", sits down, and waits" * (i % 4 == 3)}.\n'
    for i in range(60)
)
"""Sentences, one a line; some have commas."""


def text(delimiter: str, header: str = "a,b,y") -> str:
    lines = [header.replace(",", delimiter)]
    lines += [delimiter.join(map(str, row)) for row in ROWS]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (text(";").encode("cp1252"), {"encoding": "cp1252", "delimiter": ";"}),
        (text("|").encode(), {"delimiter": "|"}),
        (text(",").encode("utf-16"), {"encoding": "utf-16"}),
        (text(",").encode("utf-16-le"), {"encoding": "utf-16-le"}),
        (text(",").encode().replace("3 €".encode(), b"3 \xe4", 1), {}),
        (text("   ").replace(" €", "").encode(), {"delimiter": "spaces"}),
        (PROSE.encode(), {"delimiter": "\t", "quote": None}),
        (text(",").replace("3 €", "it said, again", 1).encode(), {}),
        (text(",", "a,2019,2020").replace(" €", "").encode(), {"header": True}),
    ],
)
def test_words_are_found_out(data: bytes, words: dict, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    source = yaml.safe_load(api.init(str(tmp_path / "t.csv")))["source"]
    source = {w: v for w, v in source.items() if w not in ("type", "path")}
    assert source == words


def test_frames_are_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    frame = pd.DataFrame(ROWS, columns=["a", "b", "y"])
    table = pa.Table.from_pandas(frame)
    paths = {api.check({"source": rows}).source.path for rows in (frame, table)}
    assert len(paths) == 1 and "name: frame" in api.init(frame, target="y")
    with pytest.raises(RecipeError) as error:
        api.check({"source": frame, "inputs": frame})
    assert "€" not in str(error.value)
    with pytest.raises(SourceError, match="several kinds"):
        api.check({"source": pd.DataFrame({"a": [1, "secret"]})})


def test_a_path_alone_is_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert api.check({"source": "x.csv"}).source.path == ("x.csv",)
    given = api.check({"source": "x.csv"}, overrides=["source.na=?"]).source
    assert given.path == ("x.csv",) and given.na == ("?",)
