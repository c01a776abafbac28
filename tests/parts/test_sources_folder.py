"""Source `folder`: files that are rows, of folders and of archives; by the laws, and on real pictures."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic_core import PydanticCustomError

from penstock.api import init, prepare
from penstock.contracts.data import Source
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.testing.laws import sources as laws

PETS = {
    "train/cat/1.txt": b"mjau",
    "train/cat/2.txt": b"",
    "train/dog/1.txt": "vov æ".encode(),
    "test/dog/9.txt": "smør".encode("latin-1"),
    "test/cat/7.txt": b"\xef\xbb\xbfpurr",
    ".hidden/x.txt": b"no",
    "__MACOSX/train/cat/._1.txt": b"no",
    "train/.DS_Store": b"no",
    "notes.txt": b"not a pet",
}
BY_PATH = "{split}/{label}/{name}.txt"


def source(path, **words) -> Source:
    return Source.load({"type": "folder", "path": path, **words})


def spread(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tarred(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info)
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return file.getvalue()


class Got:
    """What an extract gave."""

    def __init__(
        self, declared: Source, base: Path, scratch: Path, *, memory_bytes: int = 1 << 28
    ) -> None:
        told: list[str] = []
        self.snapshot = declared.snapshot(base)
        made = declared.extract(
            self.snapshot,
            scratch,
            memory_bytes=memory_bytes,
            events=Events(lambda e: told.append(e.fields.get("text", ""))),
        )
        self.made, self.said = made, "\n".join(told)
        self.table = pq.read_table(made.parquet)
        self.rows = self.table.select(made.schema.names).to_pylist()
        self.rejects = [r for p in made.rejects for r in pq.read_table(p).to_pylist()]


@pytest.fixture
def got(tmp_path):
    def go(path, **words) -> Got:
        return Got(source(path, **words), tmp_path, tmp_path / "scratch")

    return go


@pytest.fixture
def pets(tmp_path) -> Path:
    spread(tmp_path / "pets", PETS)
    (tmp_path / "pets.tar").write_bytes(tarred(PETS))
    (tmp_path / "pets.tgz").write_bytes(gzip.compress(tarred(PETS)))
    (tmp_path / "pets.tar.zst").write_bytes(
        pa.compress(tarred(PETS), "zstd", asbytes=True)
    )
    (tmp_path / "pets.zip").write_bytes(zipped(PETS))
    return tmp_path


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(
    "words",
    [
        {"path": "pets"},
        {"path": "pets", "pattern": BY_PATH, "encoding": "auto"},
        {"path": "pets.tar"},
        {"path": "pets.tgz", "pattern": BY_PATH},
        {"path": "pets.zip", "content": "bytes"},
        {"path": ["pets.zip", "pets.tar.zst"], "pattern": "**/*.txt"},
        {"path": "pets.t*"},
    ],
    ids=["folder", "pattern", "tar", "tgz", "zip", "several", "glob"],
)
def test_laws(pets, words, law):
    law(source(**words), pets)


@pytest.mark.parametrize(
    "path", ["pets", "pets.tar", "pets.tgz", "pets.tar.zst", "pets.zip"]
)
def test_the_same_rows_wherever_files_lie(pets, got, path):
    found = got(path, pattern=BY_PATH)
    assert sorted(
        (r["split"], r["label"], r["name"], r["content"]) for r in found.rows
    ) == [
        ("test", "cat", "7", "purr"),
        ("train", "cat", "1", "mjau"),
        ("train", "cat", "2", ""),
        ("train", "dog", "1", "vov æ"),
    ]
    assert {r["path"] for r in found.rows} == {
        "test/cat/7.txt",
        "train/cat/1.txt",
        "train/cat/2.txt",
        "train/dog/1.txt",
    }
    assert found.made.schema == pa.schema(
        [(n, pa.string()) for n in ("path", "split", "label", "name", "content")]
    )
    (reject,) = found.rejects
    assert (
        "is not utf-8: byte 3 is 0xf8" in reject["reason"]
        and json.loads(reject["row"])["path"] == "test/dog/9.txt"
    )
    assert reject["file"] == ("test/dog/9.txt" if path == "pets" else path) and reject[
        "line"
    ] == (1 if path == "pets" else 4)
    assert (
        "left out" in found.said
        and "notes.txt" in found.said
        and "read twice" not in found.said
    )


def test_without_a_pattern_the_folder_is_the_label(pets, got):
    for path in ("pets", "pets.tgz", "pets.zip"):
        found = got(path, encoding="auto")
        assert {r["path"]: r["label"] for r in found.rows} == {
            "train/cat/1.txt": "cat",
            "train/cat/2.txt": "cat",
            "train/dog/1.txt": "dog",
            "test/dog/9.txt": "dog",
            "test/cat/7.txt": "cat",
            "notes.txt": None,
        }
        assert (
            {r["content"] for r in found.rows} >= {"smør", "purr", ""}
            and "Latin-1" in found.said
            and "`label`" in found.said
        )
        assert ("read twice" in found.said) == (path == "pets.tgz")


def test_files_in_no_folder_have_no_label(tmp_path, got):
    spread(tmp_path / "flat", {"_DSC1.jpg": b"\xff\xd8", "b.jpg": b"\xff\xd9"})
    found = got("flat")
    assert found.made.schema == pa.schema(
        [("path", pa.string()), ("content", pa.binary())]
    )
    assert (
        [r["path"] for r in found.rows] == ["_DSC1.jpg", "b.jpg"]
        and found.table["__file"].to_pylist() == [0, 1]
        and found.table["__row"].to_pylist() == [0, 0]
    )


def test_bytes_empty_and_too_large(tmp_path, got):
    spread(tmp_path / "p", {"a/1.png": b"x" * 10, "a/2.png": b"", "a/3.png": b"x" * 2000})
    (tmp_path / "p.tgz").write_bytes(
        gzip.compress(
            tarred({"a/1.png": b"x" * 10, "a/2.png": b"", "a/3.png": b"x" * 2000})
        )
    )
    for path in ("p", "p.tgz"):
        found = got(path, max_bytes="1kB")
        assert [r["content"] for r in found.rows] == [b"x" * 10] and [
            r["label"] for r in found.rows
        ] == ["a"]
        assert found.made.rejected == len(found.rejects) == 2
        assert any("is empty" in r["reason"] for r in found.rejects) and any(
            "has 2,000 bytes, more than `max_bytes` (1,000)" in r["reason"]
            for r in found.rejects
        )
    with pytest.raises(SourceError, match=r"a/2\.png.*is empty.*on_bad_row"):
        got("p", on_bad_row="fail")


def test_content_by_ending_or_by_word(tmp_path, got):
    spread(tmp_path / "p", {"a/1": b"x", "a/2.md": b"y"})
    mixed = got("p")
    assert (
        mixed.rows[0]["content"] == b"x"
        and "1 of 2 files have the ending of a text file" in mixed.said
    )
    assert got("p", content="text").rows[0]["content"] == "x"
    assert got("p", pattern="*/*.md").rows == [{"path": "a/2.md", "content": "y"}]
    assert got("p", pattern="*/*.md", content="bytes").rows == [
        {"path": "a/2.md", "content": b"y"}
    ]
    with pytest.raises(SourceError, match=r"encoding.*content: text"):
        got("p", pattern="a/1", encoding="latin-1")


def test_names_that_lead_out_and_links_are_told(tmp_path, got):
    link, device = tarfile.TarInfo("a/link.png"), tarfile.TarInfo("a/tty.png")
    link.type, link.linkname, device.type = (
        tarfile.SYMTYPE,
        "/etc/passwd",
        tarfile.CHRTYPE,
    )
    raw = tarred(
        {
            "a/1.png": b"x",
            "../../a/2.png": b"y",
            "/a/3.png": b"z",
            "caf\udce9/4.png": b"w",
            "a/1.png ": b"q",
        },
        link,
        device,
    )
    (tmp_path / "odd.tar").write_bytes(raw)
    found = got("odd.tar", pattern="**/{name}.png")
    assert [r["path"] for r in found.rows] == ["a/1.png", "a/3.png"]
    assert [r["reason"].split(": ")[1] for r in found.rejects] == [
        "its name leads out of the archive",
        "its name is not UTF-8",
    ]
    assert "1 links, such as a/link.png" in found.said and "1 devices" in found.said


def test_second_files_of_one_name_are_rows_and_told(tmp_path, got):
    both = tarred({"a/1.txt": b"old"}) + tarred({"a/1.txt": b"new"})
    (tmp_path / "a.tar").write_bytes(both)
    found = got("a.tar")
    assert (
        [r["content"] for r in found.rows] == ["old", "new"]
        and "second files of one name" in found.said
        and "joined end to end" in found.said
    )


def test_several_archives_in_order(tmp_path, got):
    for i in range(3):
        (tmp_path / f"shard-{i}.tar").write_bytes(
            tarred({f"c{i}/{j}.png": bytes([i, j]) for j in range(4)})
        )
    for path in ("shard-*.tar", ["shard-0.tar", "shard-1.tar", "shard-2.tar"], "."):
        found = got(path)
        assert [f.path for f in found.snapshot.files] == [
            "shard-0.tar",
            "shard-1.tar",
            "shard-2.tar",
        ]
        assert (
            found.table["__file"].to_pylist() == [0] * 4 + [1] * 4 + [2] * 4
            and found.table["__row"].to_pylist() == [0, 1, 2, 3] * 3
        )
        assert found.table["label"].to_pylist() == ["c0"] * 4 + ["c1"] * 4 + ["c2"] * 4
        shutil.rmtree(
            tmp_path / "scratch"
        )  # or it would be among the archives' neighbours


def test_damaged_archives_are_named(tmp_path, got):
    raw = tarred({"a/1.png": b"x" * 1000, "a/2.png": b"y" * 1000})
    (tmp_path / "cut.tar").write_bytes(raw[:2000])
    with pytest.raises(SourceError, match=r"cut\.tar is cut short.*'a/1\.png'"):
        got("cut.tar")
    (tmp_path / "cut.tgz").write_bytes(gzip.compress(raw)[:-20])
    with pytest.raises(SourceError, match=r"cut\.tgz is damaged or cut short"):
        got("cut.tgz", pattern="*/*.png")
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(SourceError, match=r"no\.zip cannot be read as a zip"):
        got("no.zip")


def test_what_is_not_there_or_not_meant(tmp_path, got):
    spread(tmp_path / "p", {"a/1.png": b"x", "a/2.zip": b"PK"})
    (tmp_path / "p.zip").write_bytes(zipped({"a/1.png": b"x"}))
    (tmp_path / "empty").mkdir()
    for path, words, match in (
        ("pp", {}, "there is no .*pp"),
        (
            "p",
            {"pattern": "{label}/*.jpg"},
            r"nothing in p matches `pattern` '\{label\}/\*\.jpg'; its 2 files are such as 'a/1\.png'",
        ),
        ("p.zip", {"pattern": "*/*.jpg"}, r"nothing in it matches `pattern`.*'a/1\.png'"),
        ("p/a/1.png", {}, "neither a folder nor an archive"),
        ("empty", {}, "has no files"),
        (["p", "p.zip"], {}, "one folder of several"),
        ("p", {"pattern": "**/*.zip"}, "finds archives in p"),
    ):
        with pytest.raises(SourceError, match=match):
            got(path, **words)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"pattern": "{path}/{name}"}, "second column"),
        ({"pattern": "{a}/{A}"}, "second column"),
        ({"pattern": "/x"}, "below the root"),
        ({"encoding": "utf-9"}, "no encoding"),
        ({"content": "bytes", "encoding": "latin-1"}, "leave it out"),
        ({"max_bytes": "3GiB"}, "less than 2GiB"),
        ({"content": "picture"}, "auto, bytes, text"),
        ({"patern": "x"}, "Did you mean 'pattern'"),
        ({"path": []}, "must name"),
    ],
)
def test_mistakes_are_told(words, match):
    with pytest.raises(PydanticCustomError, match=match):
        Source.load({"type": "folder", "path": "x", **words})


def test_a_file_that_changes_meanwhile_ends_the_run(pets, tmp_path):
    declared = source("pets", pattern=BY_PATH)
    snapshot = declared.snapshot(pets)
    (pets / "pets/train/cat/1.txt").write_bytes(b"longer than it was")
    with pytest.raises(SourceError, match="changed while"):
        declared.extract(snapshot, tmp_path / "s", memory_bytes=1 << 28, events=Events())


def test_links_in_a_folder_are_followed_but_not_in_a_circle(tmp_path, got):
    spread(tmp_path / "p", {"a/1.png": b"x"})
    (tmp_path / "p/b").symlink_to(tmp_path / "p/a")
    (tmp_path / "p/a/loop").symlink_to(tmp_path / "p")
    (tmp_path / "p/a/gone.png").symlink_to(tmp_path / "nowhere")
    found = got("p")
    assert (
        [r["path"] for r in found.rows] == ["a/1.png", "b/1.png"]
        and "2 links to nowhere" in found.said
        and "a/gone.png" in found.said
    )


def test_batches_are_bounded_by_bytes(tmp_path):
    spread(tmp_path / "p", {f"a/{i}.png": bytes([i]) * 200_000 for i in range(40)})
    found = Got(source("p"), tmp_path, tmp_path / "scratch", memory_bytes=1 << 20)
    groups = pq.ParquetFile(found.made.parquet[0]).metadata
    assert (
        found.made.rows == 40
        and groups.num_row_groups > 2
        and max(groups.row_group(g).total_byte_size for g in range(groups.num_row_groups))
        < 4 << 20
    )


def test_a_folder_and_an_archive_at_a_url(tmp_path, got):
    system = fsspec.filesystem("memory")
    for name, data in PETS.items():
        system.pipe_file(f"/pets-test/{name}", data)
    system.pipe_file("/pets-test.tgz", gzip.compress(tarred(PETS)))
    try:
        for path in ("memory://pets-test", "memory://pets-test.tgz"):
            assert sorted(
                r["path"] for r in got(path, pattern=BY_PATH, encoding="auto").rows
            ) == [
                "test/cat/7.txt",
                "test/dog/9.txt",
                "train/cat/1.txt",
                "train/cat/2.txt",
                "train/dog/1.txt",
            ]
        with pytest.raises(SourceError, match="there is no memory://pets-nope"):
            got("memory://pets-nope")
    finally:
        system.rm("/pets-test", recursive=True)
        system.rm("/pets-test.tgz")


def test_a_sample_is_spread_over_all_files(tmp_path):
    spread(
        tmp_path / "p",
        {f"{label}/{i:02d}.png": b"x" for label in "abcd" for i in range(25)},
    )
    (tmp_path / "p.tgz").write_bytes(
        gzip.compress(
            tarred({f"{label}/{i:02d}.png": b"x" for label in "abcd" for i in range(25)})
        )
    )
    for path in ("p", "p.tgz"):
        declared = source(path)
        sample = declared.sample(declared.snapshot(tmp_path), 20).plain()
        assert (
            sample.num_rows == 20
            and sorted(sample["label"].to_pylist()) == sorted("abcd" * 5)
            and sample.column_names == ["path", "label", "content"]
        )


def test_init_sees_that_files_are_rows(pets, monkeypatch):
    monkeypatch.chdir(pets)
    assert "type: folder" in init("pets.zip") and "type: folder" in init(
        {"path": "pets", "pattern": BY_PATH, "encoding": "auto"}
    )
    spread(pets / "pictures", {"a/1.png": b"x"})
    assert "type: folder" in init("pictures")


# -- prepared ------------------------------------------------------------------------------------------------


def test_a_validation_split_is_carved_out_of_a_given_train(tmp_path):
    files = {f"train/{'ab'[i % 2]}/{i}.txt": str(i).encode() for i in range(400)} | {
        f"test/{'ab'[i % 2]}/{i}.txt": b"t" for i in range(50)
    }
    (tmp_path / "t.tar").write_bytes(tarred(files))
    told: list[str] = []
    words = {
        "name": "t",
        "source": {
            "type": "folder",
            "path": str(tmp_path / "t.tar"),
            "pattern": "{side}/{label}/*.txt",
        },
        "split": {"by": "column", "on": "side", "validation": 0.25},
    }
    made = prepare(
        words,
        store=tmp_path / "store",
        events=Events(lambda e: told.append(e.fields.get("text", ""))),
    )
    assert (
        made.counts["test"] == 50
        and 70 < made.counts["validation"] < 130
        and made.counts["train"] + made.counts["validation"] == 400
    )
    assert set(made.table("test")["side"].to_pylist()) == {"test"} and set(
        made.table("validation")["side"].to_pylist()
    ) == {"train"}
    assert any("marks no row as validation. 25% of its train rows" in t for t in told)
    plain = prepare(
        {**words, "split": {"by": "column", "on": "side", "validation": 0}},
        store=tmp_path / "store",
    )
    assert plain.counts["train"] == 400 and plain.counts["validation"] == 0


def test_a_given_validation_split_is_left_as_it_is(tmp_path):
    (tmp_path / "t.tar").write_bytes(
        tarred(
            {
                f"{side}/{i}.txt": b"x"
                for side in ("train", "validation", "test")
                for i in range(20)
            }
        )
    )
    made = prepare(
        {
            "name": "t",
            "source": {
                "type": "folder",
                "path": str(tmp_path / "t.tar"),
                "pattern": "{side}/*.txt",
            },
            "split": {"by": "column", "on": "side"},
        },
        store=tmp_path / "store",
    )
    assert [made.counts[s] for s in ("train", "validation", "test")] == [20, 20, 20]


def test_real_pictures_in_their_tar(shared_data, tmp_path):
    found = Got(
        source(
            "cifar10/cifar10_jpg_subset.tar.gz",
            pattern="cifar10/{split}/{label}/{name}.jpg",
        ),
        shared_data,
        tmp_path / "scratch",
    )
    assert found.made.rows == 13_000 and found.made.rejected == 0
    counts = (
        found.table.group_by(["split", "label"])
        .aggregate([("path", "count")])
        .to_pylist()
    )
    assert (
        len(counts) == 20
        and {c["path_count"] for c in counts if c["split"] == "train"} == {1000}
        and {c["path_count"] for c in counts if c["split"] == "test"} == {300}
    )
    assert all(r.startswith(b"\xff\xd8") for r in found.table["content"].to_pylist())
