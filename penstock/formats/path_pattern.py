"""Files that are rows: which of them, what their paths tell, and how their bytes become text.

Pure; nothing is opened here.

A `Pattern` is a glob with names: `{label}` is any text within one step of a path and becomes a column, `*`
and `?` stay within a step, `**` is any number of steps. Paths are relative to the folder's or archive's root,
with `/`.
"""

from __future__ import annotations

import codecs
import re
from pathlib import PurePosixPath

TEXT_ENDINGS = frozenset(
    [
        ".txt",
        ".text",
        ".md",
        ".rst",
        ".csv",
        ".tsv",
        ".tab",
        ".json",
        ".jsonl",
        ".ndjson",
        ".xml",
        ".html",
        ".htm",
        ".yaml",
        ".yml",
        ".toml",
        ".log",
        ".tex",
        ".srt",
        ".vtt",
        ".eml",
        ".fasta",
        ".fa",
        ".fna",
        ".faa",
        ".ffn",
        ".fastq",
        ".fq",
        ".vcf",
        ".smi",
        ".pdb",
        ".py",
        ".js",
        ".ts",
        ".java",
        ".c",
        ".h",
        ".cpp",
        ".hpp",
        ".cs",
        ".go",
        ".rs",
        ".rb",
        ".php",
        ".r",
        ".sql",
        ".sh",
    ]
)
"""Endings of files that hold text."""
JUNK = frozenset(["__MACOSX", "Thumbs.db", "desktop.ini"])
"""What operating systems leave behind; like names that begin with a dot, never data."""
# One token: a name in braces, stars, a question mark, a set of characters, or plain
# text.
_TOKEN = re.compile(
    r"\{(?P<name>[^{}]*)\}|(?P<many>\*+)|(?P<one>\?)|\[(?P<set>!?\]?[^\]/]*)\]|(?P<text>[^*?\[{]+|.)",
    re.DOTALL,
)


class Pattern:
    """A compiled pattern.

    >>> Pattern("{split}/{label}/*.jpg").match("train/cat/1.jpg")
    {'split': 'train', 'label': 'cat'}

    Raises:
        ValueError: saying what is wrong with it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.columns: tuple[str, ...] = ()
        """The names in braces, in order."""
        steps = text.split("/")
        if not text or "" in steps or any(s in (".", "..") for s in steps):
            raise ValueError(
                "expected a path below the root, such as '{label}/*.jpg', without empty steps, '.' or"
                f" '..'; found {text!r}"
            )
        parts = []
        for i, step in enumerate(steps):
            last = i == len(steps) - 1
            # At the end `**` stands for one step at the least, elsewhere perhaps for
            # none.
            if step == "**":
                parts.append(".+" if last else "(?:[^/]+/)*")
            else:
                parts.append(self._step(step) + ("" if last else "/"))
        self._compiled = re.compile("".join(parts), re.DOTALL)
        # What stands behind the last wildcard is in every match.
        tail = re.split(r"[*?\]}]", steps[-1])[-1]
        self.ending = PurePosixPath(
            f"x{tail}" if tail.startswith(".") else tail
        ).suffix.lower()
        """The ending that every match has, such as `.jpg`; empty where the pattern leaves it open."""

    def _step(self, step: str) -> str:
        regex = ""
        for token in _TOKEN.finditer(step):
            name = token["name"]
            if name is not None:
                if not name.isidentifier():
                    raise ValueError(
                        "a name in braces becomes a column and must be a word such as {label}; found"
                        f" {{{name}}}"
                    )
                # A name that comes twice must have one and the same text.
                regex += f"(?P={name})" if name in self.columns else f"(?P<{name}>[^/]+)"
                self.columns += () if name in self.columns else (name,)
            elif token["many"] is not None:
                if len(token["many"]) > 1:
                    raise ValueError(
                        f"`**` stands for whole steps, as in 'a/**/b'; found {step!r}"
                    )
                regex += "[^/]*"
            elif token["one"] is not None:
                regex += "[^/]"
            elif token["set"]:
                inner = token["set"]
                negated, inner = inner.startswith("!"), inner.removeprefix("!")
                escaped = re.sub(r"[\\\[\]^]", r"\\\g<0>", inner)
                # A negated set would match a slash, and a token stays within its step.
                regex += f"[{'^/' if negated else ''}{escaped}]"
            else:
                regex += re.escape(token[0])
        try:
            # A step may refer back to a name of another step, which alone would be an
            # error.
            re.compile(regex.replace("(?P=", "(?:"))
        except re.error:
            raise ValueError(f"cannot be understood: {step!r}") from None
        return regex

    def match(self, path: str) -> dict[str, str] | None:
        """What the path tells, or None if it is not meant."""
        match = self._compiled.fullmatch(path)
        return None if match is None else match.groupdict()


class Lenient(Pattern):
    """A pattern for files that came later: of a path that does not match it tells nothing."""

    def match(self, path: str) -> dict[str, str | None]:  # type: ignore[override]
        """What the path tells; None for each column where it does not match."""
        unknown: dict[str, str | None] = dict.fromkeys(self.columns)
        return unknown | (super().match(path) or {})


class ParentFolder:
    """What stands in for a pattern where none is given: every file; `label` is the name of the folder it is
    in.

    A file's own name is no column (but in `path`): it often gives the answer away, or is a mere number.
    """

    text = ""
    ending = ""

    def __init__(self, *, folders: bool) -> None:
        self.columns = ("label",) if folders else ()

    def match(self, path: str) -> dict[str, str | None]:
        """The columns that the path of a file gives: its folder as `label`, None at the top."""
        return (
            {"label": path.rsplit("/", 2)[-2] if "/" in path else None}
            if self.columns
            else {}
        )


def hidden(path: str) -> bool:
    """Whether a path names something that is never data."""
    if "/" not in path:
        return (path[:1] == "." and path not in (".", "..")) or path in JUNK
    return any(
        (step[:1] == "." and step not in (".", "..")) or step in JUNK
        for step in path.split("/")
    )


def safe(path: str) -> tuple[str, str | None]:
    """An archive's name for a file as a plain relative path, and why it must be refused, if it must."""
    steps = [step for step in path.split("/") if step not in ("", ".")]
    reason = None
    if ".." in steps:
        reason = "its name leads out of the archive"
    elif not steps:
        reason = "it has no name"
    elif "\0" in path:
        reason = "its name has a zero byte"
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        reason = "its name is not UTF-8"
    # For people to read: what is refused needs a path in its reject.
    plain = "/".join(step for step in steps if step != "..")
    return plain.encode("utf-8", "backslashreplace").decode("utf-8").replace(
        "\0", "\\0"
    ), reason


def is_text(path: str) -> bool:
    """Whether a path's ending says that it holds text."""
    stem, dot, ending = path.rpartition(
        "."
    )  # as PurePosixPath.suffix has it, without its ten microseconds
    return (
        bool(dot) and stem[-1:] not in ("", "/") and f".{ending}".lower() in TEXT_ENDINGS
    )


_NO_TEXT = frozenset(
    [
        "idna",
        "punycode",
        "undefined",
        "unicode_escape",
        "raw_unicode_escape",
        "mbcs",
        "oem",
    ]
)
"""Codecs of Python that are no encodings of a file's text, or mean something else on another machine."""
_MARKED = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}


def check_encoding(encoding: str) -> str | None:
    """What is wrong with the name of an encoding."""
    if encoding == "auto":
        return None
    try:
        info = codecs.lookup(encoding)
        # zlib, rot13, … are codecs as well
        known = info._is_text_encoding and info.name.replace("-", "_") not in _NO_TEXT
    except (
        LookupError,
        ValueError,
        UnicodeError,
    ):  # a zero byte, a name that is not ASCII
        known = False
    if not known:
        return (
            f"no encoding of text is called {encoding!r}; examples: utf-8, latin-1, cp1252, utf-16,"
            " shift_jis, or auto"
        )
    return None


def lacks_mark(start: bytes, encoding: str) -> str | None:
    """Why a text that begins with `start` cannot be read as `encoding`: one of two or four bytes a letter
    needs the mark that says in which order these stand, and a machine's own order is no answer.
    """
    name = codecs.lookup(encoding).name
    if name not in _MARKED or not start or start.startswith(_MARKED[name]):
        return None
    return f"does not begin with the byte-order mark of {name}: set `encoding` to {name}-le or {name}-be"


def decoded(data: bytes, encoding: str) -> tuple[str, bool]:
    """Text without a byte-order mark, and whether it had to be guessed (`auto`, and not UTF-8).

    Raises:
        ValueError: saying why the bytes are not text of that encoding.
    """
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if encoding == "auto":
        if utf16:
            return decoded(data, "utf-16")
        try:
            return data.removeprefix(codecs.BOM_UTF8).decode("utf-8"), False
        except UnicodeDecodeError:
            # Latin-1 knows every byte, so this cannot fail.
            return data.decode("latin-1"), True
    utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    if problem := lacks_mark(data[:4], encoding):
        raise ValueError(problem)
    try:
        return (data.removeprefix(codecs.BOM_UTF8) if utf8 else data).decode(
            encoding
        ).removeprefix("\ufeff"), False
    except UnicodeDecodeError as error:
        hint = (
            "it begins with the mark of UTF-16"
            if utf8 and utf16
            else (
                f"byte {error.start + 1} is 0x{data[error.start]:02x}"
                if error.start < len(data)
                else "it ends early"
            )
        )
        raise ValueError(
            f"is not {encoding}: {hint}; name its `encoding`, or use auto"
        ) from None
    except UnicodeError as error:  # utf-16 without its mark, idna and the like
        raise ValueError(
            f"is not {encoding}: {error}; name its `encoding`, or use auto"
        ) from None
