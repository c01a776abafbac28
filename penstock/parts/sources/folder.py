"""`folder`: files that are rows: pictures, texts, sequences, of a folder or inside tar and zip archives.

    source: {type: folder, path: photos}                                     # photos/<label>/…
    source: {type: folder, path: cifar10.tar.gz, pattern: "cifar10/{split}/{label}/{name}.jpg"}
    source: {type: folder, path: "s3://lake/shards/*.tar", pattern: "**/{label}/*.txt", content: text}

A row has `path` (from the folder's or archive's root), a column for each name in the pattern's braces, and
`content`: the file's bytes, or its text. Archives are not unpacked: a zip or plain tar is read by offset, a
compressed tar in one pass. Hidden files and what operating systems leave behind (`__MACOSX`, `.DS_Store`,
`Thumbs.db`) are never rows; an empty text is a row, an empty picture is not. How it is done is in
`penstock.formats.file_rows`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import PrivateAttr, model_validator

from penstock.contracts.amounts import Bytes
from penstock.contracts.data import PLACE, Extract, Snapshot, Source, SourceFile
from penstock.contracts.learnt import Learnt
from penstock.contracts.part import mistakes
from penstock.contracts.sample import SAMPLE_FILE_BYTES, Sample
from penstock.core.errors import Problem, SourceError
from penstock.core.events import Events
from penstock.formats.archive import ARCHIVES, is_archive
from penstock.formats.draw import file_numbers
from penstock.formats.file_hashes import hashes
from penstock.formats.file_items import LeftOut, Some
from penstock.formats.file_rows import gather_archives, gather_files
from penstock.formats.files import FileInfo
from penstock.formats.find_files import find, relative
from penstock.formats.folders import is_folder, walk
from penstock.formats.options import Names as Paths
from penstock.formats.path_pattern import Lenient, ParentFolder, Pattern, check_encoding
from penstock.formats.row_shape import CONTENT, PATH, Gathering, Names, index
from penstock.formats.sampling import unread

_MOST_BYTES = 2**31 - 2**20
"""A batch of Arrow's binary values holds two GiB."""
_SAMPLE_BYTES = 64 << 20
# How much of a compressed tar a sample goes through.
_SAMPLE_STREAM_BYTES = 256 << 20
# A smaller archive is not longer than that, unpacked.
_WHOLE_STREAM_BYTES = 1 << 20


class Folder(Source):
    """Rows from files: each file of a folder, or of archives, is a row of `path`, what its path tells, and
    `content`.
    """

    path: Paths
    """A folder, or archives (.tar, .tar.gz, .tar.zst, .tar.bz2, .tar.xz, .zip): one, a list, a glob, or a
    folder that holds nothing else. Relative to the recipe's folder, or a URL (s3://, gs://, abfs://, hdfs://,
    memory://).
    """
    pattern: str | None = None
    """Which files, by their path from the folder's or archive's root, and what the path tells:
    `{split}/{label}/*.jpg`. A name in braces becomes a column and stands for any text within one step, `*`
    and `?` stay within a step, `**` is any number of steps. Unless given, every file, with `label`, the name
    of the folder it is in, where there are subfolders.
    """
    content: Literal["auto", "bytes", "text"] = "auto"
    """What `content` holds.

    `auto`: text where the endings of all files are those of text (.txt, .md, .csv, .json, …).
    """
    encoding: str = "utf-8"
    """Of texts: any encoding Python knows, or `auto`: by the byte-order mark, else UTF-8, else Latin-1,
    aloud.
    """
    max_bytes: Bytes = 64 * 2**20
    """A larger file is a bad row."""
    on_bad_row: Literal["quarantine", "fail"] = "quarantine"
    """What becomes of a file that cannot be a row: empty, too large, damaged, or not text of that
    encoding.
    """

    @model_validator(mode="after")
    def _sensible(self) -> Folder:
        problems: list[Problem] = []
        if not self.path:
            problems.append(Problem(("path",), "must name a folder or an archive"))
        if self.pattern is not None:
            try:
                # In lower case, since engines do not tell columns apart by it.
                columns = [name.lower() for name in Pattern(self.pattern).columns]
            except ValueError as error:
                problems.append(Problem(("pattern",), str(error)))
            else:
                problems += [
                    Problem(
                        ("pattern",),
                        f"{{{name}}} would be a second column of that name. Choose another name",
                    )
                    for name in dict.fromkeys(columns)
                    if columns.count(name) > 1 or name in (PATH, CONTENT)
                ]
        if wrong := check_encoding(self.encoding):
            problems.append(Problem(("encoding",), wrong))
        if self.content == "bytes" and self.encoding != "utf-8":
            problems.append(
                Problem(("encoding",), "is for `content: text`; leave it out")
            )
        if self.max_bytes > _MOST_BYTES:
            problems.append(
                Problem(
                    ("max_bytes",),
                    f"must be less than 2GiB, the most that one value can have; found {self.max_bytes:,}",
                )
            )
        if problems:
            raise mistakes(*problems)
        return self

    _is_like: bool = PrivateAttr(False)
    """Whether it is read as the data was that something was learnt from."""

    def like(self, learnt: Learnt) -> Self:
        """These files as the rows that something was learnt from: by its pattern, where any file matches it,
        and with its content. Single files may be named, too.
        """
        kind = (
            learnt.schema.field(CONTENT).type if CONTENT in learnt.schema.names else None
        )
        content = {None: self.content, pa.string(): "text"}.get(kind, "bytes")
        words = {
            word: learnt.reading[word]
            for word in ("pattern", "max_bytes", "encoding")
            if word in learnt.reading
            # An encoding is for texts alone.
            and (word != "encoding" or content == "text")
        }
        words |= {"content": content} if "content" not in words else {}
        given = {word: getattr(self, word) for word in self.model_fields_set}
        copy = type(self).model_validate({**words, **given})
        copy._is_like = True
        return copy

    def _how(self) -> Gathering:
        pattern = None
        if self.pattern is not None:
            # What the path of a later file does not tell is missing.
            pattern = (Lenient if self._is_like else Pattern)(self.pattern)
        return Gathering(
            pattern,
            self.content,
            self.encoding,
            self.max_bytes,
            self.on_bad_row == "fail",
        )

    def snapshot(self, base: Path, memo: Path | None = None) -> Snapshot:
        return self._snapshot(base, lambda files: hashes(files, memo))

    def preview(self, base: Path) -> Snapshot:
        return self._snapshot(base, lambda files: [""] * len(files))

    def _snapshot(
        self, base: Path, digests: Callable[[list[FileInfo]], list[str]]
    ) -> Snapshot:
        folders = [entry for entry in self.path if is_folder(entry, base)]
        if folders and len(self.path) > 1:
            raise SourceError(
                f"source.path: {folders[0]} is one folder of several. Name the folder above"
                " them and select files with `pattern`, or name archives only."
            )
        listed = self._in_folder(folders[0], base) if folders else self._archives(base)
        files = [
            SourceFile(path, f.url, f.size_bytes, sha, stamp=f.stamp)
            for (path, f), sha in zip(
                listed, digests([f for _, f in listed]), strict=True
            )
        ]
        return Snapshot(tuple(sorted(files, key=lambda f: (f.path, f.url))))

    def _in_folder(self, entry: str, base: Path) -> list[tuple[str, FileInfo]]:
        """The files meant, or, in a folder of nothing but archives, the archives."""
        files = walk(entry, base).files
        if not files:
            raise SourceError(
                f"the folder {entry} has no files. Name a folder with data in it."
            )
        if all(is_archive(path) for path, _ in files):
            return files
        pattern = (
            ParentFolder(folders=True) if self.pattern is None else Pattern(self.pattern)
        )
        meant = [(path, file) for path, file in files if pattern.match(path) is not None]
        if not meant and self._is_like:
            return files
        if not meant:
            some = ", ".join(repr(path) for path, _ in files[:5])
            raise SourceError(
                f"nothing in {entry} matches `pattern` {self.pattern!r}; its {len(files):,} files are such as"
                f" {some}."
            )
        if all(is_archive(path) for path, _ in meant):
            raise SourceError(
                f"`pattern` {self.pattern!r} finds archives in {entry}. To read what is in them, name them in"
                f" `path`, for example {entry.rstrip('/')}/{self.pattern}; the pattern is for the files"
                " inside."
            )
        return meant

    def _archives(self, base: Path) -> list[tuple[str, FileInfo]]:
        by_url = {
            file.url: file
            for entry in self.path
            for file in find(entry, base, any_ending=True)
        }
        if self._is_like and not any(is_archive(url) for url in by_url):
            names = relative(by_url.values())
            return [(names[url], file) for url, file in by_url.items()]
        for url in by_url:
            if not is_archive(url):
                raise SourceError(
                    f"{url} is neither a folder nor an archive ({' '.join(ARCHIVES)}). Name the folder that"
                    " it is in, and say with `pattern` which files are meant."
                )
        names = relative(by_url.values())
        return [(names[url], file) for url, file in by_url.items()]

    def extract(
        self, snapshot: Snapshot, scratch: Path, *, memory_bytes: int, events: Events
    ) -> Extract:
        if _of_archives(snapshot):
            return gather_archives(
                snapshot.files,
                self._how(),
                scratch,
                memory_bytes=memory_bytes,
                events=events,
            )
        if not self._is_like or is_folder(self.path[0], Path.cwd()):
            self._tell_left_out(snapshot, events)
        return gather_files(
            snapshot.files, self._how(), scratch, memory_bytes=memory_bytes, events=events
        )

    def _tell_left_out(self, snapshot: Snapshot, events: Events) -> None:
        # What is left of a file's URL without its path is the folder.
        first = snapshot.files[0]
        folder = walk(
            first.url.removesuffix(first.path).rstrip("/\\") or "/",
            Path("/"),
            names_only=True,
        )
        known, left = {file.path for file in snapshot.files}, LeftOut()
        for path, _ in folder.files:
            if path not in known:
                left.add("files that `pattern` does not match", path)
        for path in folder.odd:
            left.add("links to nowhere, sockets or devices", path)
        left.say(folder.root, events)

    def sample(
        self, snapshot: Snapshot, rows: int, *, file_bytes: int = SAMPLE_FILE_BYTES
    ) -> Sample:
        """About `rows` files: of each folder its part, and one at the least, so that every class is seen;
        fewer where they are large. Of a compressed tar its beginning alone is looked at.
        """
        # A bad row never ends a look, so `fail` is not passed on.
        how = Gathering(self._how().pattern, self.content, self.encoding, self.max_bytes)
        with tempfile.TemporaryDirectory(prefix="penstock-sample-") as scratch:
            if _of_archives(snapshot):
                names = index(snapshot.files, how, within=_SAMPLE_STREAM_BYTES)
                some = _some(names, rows)
                extracted = gather_archives(
                    snapshot.files,
                    how,
                    Path(scratch),
                    memory_bytes=256 << 20,
                    events=Events(),
                    names=names,
                    some=some,
                    within=_SAMPLE_STREAM_BYTES,
                )
                places = list(range(len(snapshot.files)))
            else:
                names = Names()
                for file in snapshot.files:
                    names.add(file.path, file.size_bytes)
                some = _some(names, rows)
                places = [i for i, f in enumerate(snapshot.files) if some.has(f.path)]
                extracted = gather_files(
                    [snapshot.files[i] for i in places],
                    how,
                    Path(scratch),
                    memory_bytes=256 << 20,
                    events=Events(),
                    # The shape follows from all names, as it does in a full read.
                    named=snapshot.files,
                )
            table = pq.read_table(
                extracted.parquet, columns=[*extracted.schema.names, *PLACE]
            )
            is_all = (
                extracted.rows + extracted.rejected == names.files
                and not self._streams(snapshot)
            )
            return Sample(
                file_numbers(table, places),
                rows=extracted.rows if is_all else None,
                complete=is_all,
                files=snapshot.files,
                unread=unread(extracted.rejects),
                # There are more files, and fewer rows than asked for: the sample was
                # cut for its bytes.
                cut=some.wanted < min(rows, some.files),
            )

    @staticmethod
    def _streams(snapshot: Snapshot) -> bool:
        """Whether there is an archive of which a look may see the beginning alone."""
        return any(
            is_archive(file.path) and file.size_bytes > _WHOLE_STREAM_BYTES
            for file in snapshot.files
        )


def _some(names: Names, rows: int) -> Some:
    # As many files of average size as fit into `_SAMPLE_BYTES`, and 16 at the least.
    fit = max(16, int(names.files * _SAMPLE_BYTES / max(names.size_bytes, 1)))
    return Some(min(rows, fit), names.folders)


def _of_archives(snapshot: Snapshot) -> bool:
    return all(is_archive(file.path) for file in snapshot.files)
