"""Source `files` with `load`: a column that names files becomes what is in them; missing and odd ones; real
pictures.
"""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import json
import tarfile
import threading
import zipfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic_core import PydanticCustomError

from penstock.api import prepare
from penstock.contracts.data import Source
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.prepare.survey import dataset_id
from penstock.recipe.schema import load_recipe
from penstock.testing.laws import sources as laws

PICTURES = {
    "1.jpg": b"\xff\xd8one",
    "2.jpg": b"\xff\xd8two",
    "sub/3.jpg": b"\xff\xd8three",
    "empty.jpg": b"",
    "large.jpg": b"x" * 500,
    "unnamed.jpg": b"nobody names me",
}
TABLE = """\
id,image,pay
1,1.jpg,3
2,./2.jpg,4
3,sub/3.jpg,5
4,none.jpg,6
5,,7
6,../secret.txt,8
7,/etc/passwd,9
8,empty.jpg,1
9,large.jpg,2
10,1.jpg,3
"""


@pytest.fixture
def lake(tmp_path) -> Path:
    for name, data in {"images/" + n: d for n, d in PICTURES.items()}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "secret.txt").write_text("not for the model")
    (tmp_path / "t.csv").write_text(TABLE)
    with (
        tarfile.open(tmp_path / "images.tar", "w") as tar,
        zipfile.ZipFile(tmp_path / "images.zip", "w") as made,
    ):
        for name, data in PICTURES.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            made.writestr(name, data)
    (tmp_path / "images.tgz").write_bytes(
        gzip.compress((tmp_path / "images.tar").read_bytes())
    )
    return tmp_path


def source(load: dict, path="t.csv", **words) -> Source:
    return Source.load({"type": "files", "path": path, "load": load, **words})


def extracted(declared: Source, base: Path, scratch: Path, events: Events | None = None):
    snapshot = declared.snapshot(base)
    made = declared.extract(
        snapshot, scratch, memory_bytes=1 << 28, events=events or Events()
    )
    return (
        snapshot,
        made,
        pq.read_table(made.parquet),
        [r for p in made.rejects for r in pq.read_table(p).to_pylist()],
    )


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(
    "load",
    [
        {"image": {"root": "images"}},
        {"image": {"root": "images.zip", "as": "photo"}},
        {"image": {"root": "images.tgz", "max_bytes": 400}},
        {"image": {"root": "images", "text": True, "encoding": "auto", "as": "words"}},
    ],
    ids=["folder", "zip", "tgz", "text"],
)
def test_laws(lake, load, law):
    law(source(load), lake)


@pytest.mark.parametrize(
    "root", ["images", "images/", "images.tar", "images.zip", "images.tgz"]
)
def test_the_same_files_wherever_they_lie(lake, root):
    _, made, table, rejects = extracted(
        source({"image": {"root": root, "max_bytes": 400}}), lake, lake / "s"
    )
    assert (
        made.schema.names == ["id", "image", "pay"]
        and made.schema.field("image").type == pa.binary()
    )
    assert table["id"].to_pylist() == [1, 2, 3, 5, 10] and table["__row"].to_pylist() == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert table["image"].to_pylist() == [
        PICTURES["1.jpg"],
        PICTURES["2.jpg"],
        PICTURES["sub/3.jpg"],
        None,
        PICTURES["1.jpg"],
    ]
    shown = root.rstrip("/")
    assert {json.loads(r["row"])["id"]: r["reason"] for r in rejects} == {
        4: f"its file {shown}/none.jpg is not there",
        6: "its file '../secret.txt' is not below the root",
        7: "its file '/etc/passwd' is not below the root",
        8: f"its file {shown}/empty.jpg is empty",
        9: f"its file {shown}/large.jpg has 500 bytes, more than `max_bytes` (400)",
    }
    assert {(r["file"], r["column"], r["stage"]) for r in rejects} == {
        ("t.csv", "image", "read")
    } and [r["line"] for r in rejects] == [4, 6, 7, 8, 9]
    assert made.rows + made.rejected == 10


def test_what_is_loaded_is_part_of_the_identity(lake):
    declared = source({"image": {"root": "images"}})
    memo = lake / "memo.json"
    before = declared.snapshot(lake, memo)
    assert [f.path for f in before.files] == [
        "t.csv",
        "<image>/1.jpg",
        "<image>/2.jpg",
        "<image>/empty.jpg",
        "<image>/large.jpg",
        "<image>/sub/3.jpg",
    ]
    (lake / "images/unnamed.jpg").write_bytes(b"still nobody")
    assert declared.snapshot(lake, memo).to_dict() == before.to_dict()
    (lake / "images/2.jpg").write_bytes(b"\xff\xd8TWO")
    changed = declared.snapshot(lake, memo)
    assert changed.to_dict() != before.to_dict()
    (lake / "images/none.jpg").write_bytes(b"now there")
    assert declared.snapshot(lake, memo).to_dict() != changed.to_dict()
    (lake / "images/1.jpg").write_bytes(b"other length")
    with pytest.raises(SourceError, match="changed while"):
        declared.extract(before, lake / "s", memory_bytes=1 << 28, events=Events())


def test_the_place_of_the_files_is_no_part_of_the_identity(lake, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere")
    (lake / "images").rename(other / "pictures")
    ids = []
    for root in (str(other / "pictures"), "images"):
        recipe = load_recipe(
            {
                "name": "t",
                "source": {
                    "type": "files",
                    "path": "t.csv",
                    "load": {"image": {"root": root}},
                },
            },
            base=lake,
        )
        if root == "images":
            (other / "pictures").rename(lake / "images")
        ids.append(dataset_id(recipe, recipe.source.snapshot(lake), []))
    assert ids[0] == ids[1]


def test_without_load_nothing_is_declared_that_was_not_before(lake):
    assert "load" not in Source.load({"type": "files", "path": "t.csv"}).to_dict()
    whole = source({"image": {"root": "images", "as": "photo"}})
    assert (
        whole.to_dict()["load"]["image"]["as"] == "photo"
        and Source.load(whole.to_dict()) == whole
    )


def test_beside_the_column_with_an_ending_as_text(lake):
    (lake / "texts").mkdir()
    (lake / "texts/1.txt").write_bytes("smør".encode())
    (lake / "texts/2.txt").write_bytes("smør".encode("latin-1"))
    (lake / "texts/3.txt").write_bytes(b"")
    (lake / "t.csv").write_text("id\n1\n2\n3\n")
    _, made, table, rejects = extracted(
        source({"id": {"root": "texts", "ending": ".txt", "as": "words", "text": True}}),
        lake,
        lake / "s",
    )
    assert (
        made.schema.names == ["id", "words"]
        and table["id"].to_pylist() == [1, 3]
        and table["words"].to_pylist() == ["smør", ""]
    )
    assert "its file texts/2.txt is not utf-8" in rejects[0]["reason"]


def test_two_columns_may_name_one_file(lake):
    (lake / "t.csv").write_text("front,back\n1.jpg,2.jpg\n2.jpg,2.jpg\n1.jpg,none.jpg\n")
    snapshot, _, table, rejects = extracted(
        source({"front": {"root": "images"}, "back": {"root": "images", "as": "rear"}}),
        lake,
        lake / "s",
    )
    assert [f.path for f in snapshot.files] == ["t.csv", "<front>/1.jpg", "<front>/2.jpg"]
    assert (
        table["front"].to_pylist() == [PICTURES["1.jpg"], PICTURES["2.jpg"]]
        and table["rear"].to_pylist() == [PICTURES["2.jpg"]] * 2
    )
    assert [r["column"] for r in rejects] == ["back"]


def test_tables_of_splits_and_of_other_formats(lake):
    pq.write_table(
        pa.table({"image": ["2.jpg", None, "none.jpg"], "pay": [1.5, 2.5, 3.5]}),
        lake / "test.parquet",
    )
    declared = Source.load(
        {
            "type": "files",
            "train": {"path": "t.csv", "on_bad_row": "quarantine"},
            "test": "test.parquet",
            "load": {"image": {"root": "images"}},
        }
    )
    snapshot, _, table, rejects = extracted(declared, lake, lake / "s")
    assert [f.split for f in snapshot.files[:2]] == ["train", "test"] and len(
        rejects
    ) == 5
    assert table.filter(pa.compute.equal(table["__file"], 1))["image"].to_pylist() == [
        PICTURES["2.jpg"],
        None,
    ]


@pytest.mark.parametrize(
    ("load", "match"),
    [
        (
            {"imag": {"root": "images"}},
            r"source\.load: t\.csv has no column 'imag'\. Did you mean 'image'",
        ),
        (
            {"image": {"root": "imags"}},
            r"there is no folder .*imags.* Did you mean 'images'",
        ),
        ({"image": {"root": "imags.zip"}}, r"there is no .*imags\.zip"),
        ({"image": {"root": "images", "as": "pay"}}, "there is a column 'pay' already"),
        ({"pay": {"root": "images", "as": "p"}, "image": {"root": "images/sub"}}, None),
    ],
)
def test_what_does_not_fit_is_told(lake, load, match):
    if match is None:
        assert extracted(source(load), lake, lake / "s")[1].rows == 0
        return
    with pytest.raises(SourceError, match=match):
        extracted(source(load), lake, lake / "s")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"load": {"image": {"rot": "x"}}}, "Did you mean 'root'"),
        ({"load": {"image": {"urls": True, "root": "images"}}}, "leave it out"),
        ({"load": {"image": {"encoding": "latin-1"}}}, "text: true"),
        ({"load": {"image": {}}, "columns": ["id"]}, "not among the `columns`"),
        ({"load": {"a": {"as": "c"}, "b": {"as": "C"}}}, "one column twice"),
        ({"load": {"image": {"as": ""}}}, "must be a name"),
        ({"load": {"image": {"max_bytes": "2GiB"}}}, "less than 2GiB"),
    ],
)
def test_mistakes_are_told(words, match):
    with pytest.raises(PydanticCustomError, match=match):
        Source.load({"type": "files", "path": "t.csv", **words})


def test_a_bad_row_may_end_the_run(lake):
    with pytest.raises(
        SourceError,
        match=r"line 4, column 'image': its file images/none\.jpg is not there.*on_bad_row",
    ):
        extracted(
            source({"image": {"root": "images"}}, on_bad_row="fail"), lake, lake / "s"
        )


def test_files_at_urls(lake):
    system = fsspec.filesystem("memory")
    for name, data in PICTURES.items():
        system.pipe_file(f"/load-test/{name}", data)
    try:
        _, made, table, rejects = extracted(
            source({"image": {"root": "memory://load-test"}}), lake, lake / "s"
        )
        assert (
            table["image"].to_pylist()[:3]
            == [PICTURES["1.jpg"], PICTURES["2.jpg"], PICTURES["sub/3.jpg"]]
            and made.rejected == 4
        )
        (lake / "u.csv").write_text(
            "at\nmemory://load-test/1.jpg\nmemory://load-test/none.jpg\nfile:///etc/passwd\nzip://x::file:///etc/passwd\n1.jpg\n"
        )
        snapshot, _, table, rejects = extracted(
            source({"at": {"urls": True, "as": "image"}}, path="u.csv"), lake, lake / "s2"
        )
        assert (
            table["image"].to_pylist() == [PICTURES["1.jpg"]]
            and snapshot.files[1].path == "<at>/memory://load-test/1.jpg"
        )
        assert [r["reason"].split(" (")[0] for r in rejects] == [
            "its file memory://load-test/none.jpg is not there",
            "'file:///etc/passwd' is no URL",
            "'zip://x::file:///etc/passwd' is no URL",
            "'1.jpg' is no URL",
        ]
    finally:
        system.rm("/load-test", recursive=True)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        return


def test_files_of_a_web_server(lake):
    pytest.importorskip("aiohttp")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(lake / "images"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{server.server_port}"
    (lake / "u.csv").write_text(f"id,photo\n1,{at}/1.jpg\n2,{at}/none.jpg\n3,\n")
    try:
        _, _, table, rejects = extracted(
            source({"photo": {"urls": True}}, path="u.csv"), lake, lake / "s"
        )
    finally:
        server.shutdown()
        server.server_close()
    assert (
        table["photo"].to_pylist() == [PICTURES["1.jpg"], None]
        and rejects[0]["reason"] == f"its file {at}/none.jpg is not there"
    )


def test_a_sample_has_the_files_of_its_rows(lake):
    for root in ("images", "images.tgz"):
        declared = source({"image": {"root": root}})
        sample = declared.sample(declared.snapshot(lake), 100).plain()
        assert sample.column_names == ["id", "image", "pay"]
        assert sample["image"].to_pylist()[:3] == [
            PICTURES["1.jpg"],
            PICTURES["2.jpg"],
            PICTURES["sub/3.jpg"],
        ]
        few = declared.sample(declared.snapshot(lake), 3).plain()
        assert 0 < few.num_rows <= 3
        assert set(few["image"].to_pylist()) <= set(sample["image"].to_pylist())


def test_prepared_rows_are_all_somewhere(lake):
    told: list[str] = []
    made = prepare(
        {
            "name": "t",
            "source": {
                "type": "files",
                "path": str(lake / "t.csv"),
                "load": {"image": {"root": str(lake / "images")}},
            },
            "key": ["id"],
        },
        store=lake / "store",
        events=Events(lambda e: told.append(e.fields.get("text", ""))),
    )
    assert (
        made.counts["in"] == 10
        and made.counts["quarantined"] == 4
        and any("is not there" in t for t in told)
    )


def test_real_pictures_named_by_a_table(shared_data, tmp_path):
    snapshot, made, table, _ = extracted(
        source({"image": {"root": "fashion"}}, path="fashion/styles.csv"),
        shared_data,
        tmp_path / "s",
    )
    assert made.rows == 2176 and made.rejected == 0 and len(snapshot.files) == 2177
    assert all(b.startswith(b"\xff\xd8") for b in table["image"].to_pylist())
