"""Source `files`: which files, with which words; local, in memory and in a bucket; by the laws, and on real
data.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic_core import PydanticCustomError

import penstock
from penstock.contracts.data import Source
from penstock.core.errors import MissingPackage, SourceError
from penstock.core.events import Events
from penstock.testing.laws import sources as laws

ADULT = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
]


def files(path=None, **words) -> Source:
    return Source.load(
        {"type": "files", **({"path": path} if path is not None else {}), **words}
    )


def extracted(source: Source, base: Path, scratch: Path, events: Events | None = None):
    snapshot = source.snapshot(base)
    made = source.extract(
        snapshot, scratch, memory_bytes=1 << 28, events=events or Events()
    )
    return snapshot, made, pq.read_table(made.parquet)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "lake"
    for name, text in {
        "b/2.csv": "a,b\n3,x\n",
        "a/1.csv": "a,b\n1,y\nbad\n2,z\n",
        "c.jsonl": '{"a": 4, "b": "w", "n": {"m": 1}}\n',
        "_SUCCESS": "",
        ".hidden.csv": "q\n1\n",
        "_delta_log/0.json": "{}",
        "README.md": "# read me",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    pq.write_table(pa.table({"a": [5.5], "b": ["v"]}), folder / "d.parquet")
    return folder


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(
    "words",
    [
        {"path": "lake"},
        {"path": "lake/*/*.csv", "na": ["?"], "types": {"a": "text"}},
        {"path": ["lake/c.jsonl", "lake/d.parquet"]},
        {
            "train": "lake/a/1.csv",
            "test": {
                "path": "lake/b/2.csv",
                "header": False,
                "names": ["a", "b"],
                "skip_rows": 1,
                "quote": None,
            },
            "delimiter": ",",
            "quote": "'",
        },
    ],
    ids=["folder", "glob", "list", "splits"],
)
def test_laws(lake: Path, words: dict, law: laws.Law) -> None:
    law(Source.load({"type": "files", **words}), lake.parent)


def test_check_source_names_the_law(lake: Path) -> None:
    laws.check_source(files("lake"), lake.parent)


def test_a_folder_is_its_tables_sorted(lake, tmp_path):
    snapshot, made, table = extracted(files("lake"), tmp_path, tmp_path / "s")
    assert [f.path for f in snapshot.files] == [
        "a/1.csv",
        "b/2.csv",
        "c.jsonl",
        "d.parquet",
    ]
    assert (
        table["a"].to_pylist() == [1.0, 2.0, 3.0, 4.0, 5.5]
        and table["__file"].to_pylist() == [0, 0, 1, 2, 3]
        and table["__row"].to_pylist() == [0, 1, 0, 0, 0]
    )
    assert (
        made.rejected == 1 and pq.read_table(made.rejects[0]).to_pylist()[0]["line"] == 3
    )
    assert made.schema.names == ["a", "b", "n.m"]
    assert [f.path for f in files("lake/**/*.csv").snapshot(tmp_path).files] == [
        "a/1.csv",
        "b/2.csv",
    ]
    assert [f.path for f in files("lake/a/1.csv").snapshot(tmp_path).files] == ["1.csv"]
    assert [
        f.path for f in files(["lake/a/1.csv", "lake/b"]).snapshot(tmp_path).files
    ] == [
        "a/1.csv",
        "b/2.csv",
    ]
    assert files(str(lake)).snapshot(Path("/")).to_dict() == snapshot.to_dict()


def test_memo_is_used_and_kept(lake, tmp_path):
    memo = tmp_path / "cache" / "memo.json"
    first = files("lake").snapshot(tmp_path, memo)
    known = json.loads(memo.read_text())
    assert set(known) == {f.url for f in first.files}
    for entry in known.values():
        entry["sha256"] = "0" * 64
    memo.write_text(json.dumps(known))
    assert {f.sha256 for f in files("lake").snapshot(tmp_path, memo).files} == {"0" * 64}
    memo.write_text("{torn")
    assert files("lake").snapshot(tmp_path, memo) == first
    (lake / "c.jsonl").write_text('{"a": 5}\n')
    assert files("lake").snapshot(tmp_path, memo) != first


def test_hive_folders_give_columns(tmp_path):
    for year, kind in ((2023, "a%20b"), (2024, "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / "lake" / f"year={year}" / f"kind={kind}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"v": [year]}), folder / "p.parquet")
    _, made, table = extracted(files("lake"), tmp_path, tmp_path / "s")
    assert table.select(made.schema.names).to_pylist() == [
        {"v": 2023, "year": 2023, "kind": "a b"},
        {"v": 2024, "year": 2024, "kind": None},
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "path: is required"),
        ({"path": "a", "train": "b"}, "give either"),
        ({"test": "a"}, "train: is required"),
        ({"path": "a", "delimitr": ";"}, "Did you mean 'delimiter'"),
        ({"path": "a", "delimiter": "||"}, "one ASCII character"),
        ({"path": "a", "encoding": "utf-9"}, "no encoding is called"),
        ({"path": "a", "types": {"x": "int"}}, "integer"),
        ({"path": "a", "train": {"skip_rows": 1}}, "path: is required"),
        ({"path": "a", "names": ["x", "x"]}, "is there twice"),
        ({"path": "a", "quote": ",", "delimiter": ","}, "must differ"),
    ],
)
def test_mistakes_in_words(words, said):
    with pytest.raises(PydanticCustomError) as error:
        Source.load({"type": "files", **words})
    assert said in str(error.value)


def test_declared_is_what_was_given_for_a_split():
    source = files(
        train="a.csv", test={"path": "b.csv", "quote": None, "types": {"x": "text"}}
    )
    assert source.to_dict()["test"] == {
        "path": ["b.csv"],
        "quote": None,
        "types": {"x": "text"},
    }
    assert Source.load(json.loads(json.dumps(source.to_dict()))) == source


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("lake/c.json", "Did you mean 'c.jsonl'"),
        ("lakes", "Did you mean 'lake'"),
        ("lake/*.orc", "nothing matches"),
        ("empty", "has no files"),
        ("docs", "no file whose ending"),
        ("lake/zero.csv", "is empty"),
        ("nothere://x", "nothere"),
        ("memory://nothere/x.csv", "there is no"),
        ("memory://nothere/*.csv", "nothing matches"),
    ],
)
def test_what_is_not_there_is_said(lake, tmp_path, path, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("x")
    (lake / "zero.csv").write_text("")
    with pytest.raises(SourceError, match=re.escape(said)):
        extracted(files(path), tmp_path, tmp_path / "s")


def test_no_permission(lake, tmp_path, monkeypatch):
    (lake / "c.jsonl").chmod(0)
    # root may read anything
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).endswith("c.jsonl")
    )
    with pytest.raises(SourceError, match="cannot be read by this user"):
        files("lake/c.jsonl").snapshot(tmp_path)
    (lake / "c.jsonl").chmod(0o600)


def test_absent_packages_name_their_extra(tmp_path):
    for url, extra in (("gs://bucket/a.csv", "gcs"), ("abfs://box/a.csv", "azure")):
        try:
            __import__({"gcs": "gcsfs", "azure": "adlfs"}[extra])
        except ImportError:
            with pytest.raises(MissingPackage, match=rf"penstock\[{extra}\]"):
                files(url).snapshot(tmp_path)


def test_a_file_in_two_splits_and_a_file_that_changes(lake, tmp_path):
    with pytest.raises(SourceError, match="cannot be in two splits"):
        files(train="lake", test="lake/b/2.csv").snapshot(tmp_path)
    source = files("lake/c.jsonl")
    snapshot = source.snapshot(tmp_path)
    (lake / "c.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(SourceError, match="changed while"):
        source.extract(snapshot, tmp_path / "s", memory_bytes=1 << 28, events=Events())


def test_memory_url(lake, tmp_path):
    system = fsspec.filesystem("memory")
    system.put(f"{lake}/", "/pond/", recursive=True)
    snapshot, made, table = extracted(files("memory://pond"), tmp_path, tmp_path / "s")
    assert [f.path for f in snapshot.files] == [
        "a/1.csv",
        "b/2.csv",
        "c.jsonl",
        "d.parquet",
    ] and (
        made.rows,
        made.rejected,
    ) == (5, 1)
    assert snapshot.to_dict() == files("lake").snapshot(tmp_path).to_dict()
    assert table["a"].to_pylist() == [1.0, 2.0, 3.0, 4.0, 5.5]
    assert [f.path for f in files("memory://pond/*/*.csv").snapshot(tmp_path).files] == [
        "a/1.csv",
        "b/2.csv",
    ]
    system.rm("/pond", recursive=True)


def test_bucket(lake, tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    import s3fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        system = s3fs.S3FileSystem()
        system.mkdir("lake")
        for file in ("a/1.csv", "b/2.csv", "c.jsonl", "d.parquet", "_SUCCESS"):
            system.pipe_file(f"lake/in/{file}", (lake / file).read_bytes())
        memo = tmp_path / "memo.json"
        source = files("s3://lake/in")
        snapshot = source.snapshot(tmp_path, memo)
        assert snapshot == source.snapshot(tmp_path, memo)
        assert snapshot.to_dict() == files("lake").snapshot(tmp_path).to_dict()
        made = source.extract(
            snapshot, tmp_path / "s", memory_bytes=1 << 28, events=Events()
        )
        assert (made.rows, made.rejected) == (5, 1) and pq.read_table(made.parquet)[
            "a"
        ].to_pylist() == [
            1.0,
            2.0,
            3.0,
            4.0,
            5.5,
        ]
        assert [
            f.path for f in files("s3://lake/in/*/*.csv").snapshot(tmp_path).files
        ] == [
            "a/1.csv",
            "b/2.csv",
        ]
        with pytest.raises(SourceError, match=r"there is no s3://lake/in/c.json"):
            files("s3://lake/in/c.json").snapshot(tmp_path)
        with pytest.raises(SourceError, match=r"there is no|cannot read"):
            files("s3://nobucket/in").snapshot(tmp_path)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(SourceError, match="needs credentials"):
            files("s3://lake/in").snapshot(tmp_path)
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


# -- real data -----------------------------------------------------------------------------------------------


def test_adult_by_files(shared_data, tmp_path):
    source = files(
        train="adult/adult.data",
        test={"path": "adult/adult.test", "skip_rows": 1, "trim_end": {"income": "."}},
        names=ADULT,
        na="?",
    )
    snapshot, made, table = extracted(source, shared_data, tmp_path)
    assert [(f.path, f.split) for f in snapshot.files] == [
        ("adult.data", "train"),
        ("adult.test", "test"),
    ]
    assert (made.rows, made.rejected) == (48_842, 0)
    assert table["__file"].value_counts().to_pylist() == [
        {"values": 0, "counts": 32_561},
        {"values": 1, "counts": 16_281},
    ]
    train = table.slice(0, 32_561)
    assert [
        train[c].null_count for c in ("workclass", "occupation", "native-country")
    ] == [1_836, 1_843, 583]
    assert sorted(set(table["income"].to_pylist())) == ["<=50K", ">50K"]
    assert sum(v == ">50K" for v in train["income"].to_pylist()) == 7_841
    assert (
        str(made.schema.field("age").type) == "int64" and "row" not in made.schema.names
    )
    assert source.sample(snapshot, 100).plain().schema.equals(made.schema)


def test_adult_test_without_its_quirk_declared(shared_data, tmp_path):
    _, made, _ = extracted(files("adult/adult.test", names=ADULT), shared_data, tmp_path)
    assert (made.rows, made.rejected) == (16_281, 1)
    assert pq.read_table(made.rejects[0]).to_pylist()[0] == {
        "row_id": None,
        "file": "adult.test",
        "line": 1,
        "stage": "read",
        "column": None,
        "reason": "expected 15 cells, found 1",
        "row": "|1x3 Cross validator",
    }


@pytest.mark.parametrize(
    ("path", "rows", "words"),
    [
        ("dirty/beers/dirty.csv", 2_410, {}),
        ("dirty/hospital/dirty.csv", 1_000, {}),
        ("fashion/styles.csv", 2_176, {}),
        ("ett", 34_840, {}),
        ("goemotions/*.tsv", 54_263, {"quote": None, "names": ["text", "labels", "id"]}),
        ("nested_json/*.json", 24_899, {}),
    ],
)
def test_real_files_are_read_whole(shared_data, tmp_path, path, rows, words):
    _, made, _ = extracted(files(path, **words), shared_data, tmp_path)
    assert (made.rows, made.rejected) == (rows, 0)


def test_init_finds_out_the_encoding_of_texts(tmp_path):
    (tmp_path / "b.csv").write_bytes(
        b"name,pay\n" + "".join(f"Zoë{i},{i % 2}\n" for i in range(40)).encode("latin-1")
    )
    assert "encoding: cp1252" in penstock.init(tmp_path / "b.csv", target="pay")
    # What is said stands, and what to try is told.
    said = {"path": str(tmp_path / "b.csv"), "encoding": "utf-8"}
    with pytest.raises(
        SourceError, match=r"No row could be read from .*b\.csv.*--set encoding=auto"
    ):
        penstock.init(said, target="pay")
    assert "encoding: auto" in penstock.init(
        {"path": str(tmp_path / "b.csv"), "encoding": "auto"}, target="pay"
    )
