"""Every sentence that Penstock says, on one page; `python -m tests.messages > docs/messages.md` writes it
anew.

A reviewer reads the page in one sitting, and a translator or a searcher finds each sentence as users see it.
`make lint` compares it with the code. What is filled in stands in braces.

A sentence that is reworded leaves tests behind that wait for the old one. `--check` lists them: what a test
quotes of a sentence of the last commit's page that nothing says any more.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "messages.md"

HEAD = """# Every sentence that Penstock says

Errors, warnings and what is said in passing, by file, in the order of the code. `{…}` is filled in.
Made by `python -m tests.messages > docs/messages.md`.
"""

SPOKEN = {
    "say",
    "warn",
    "note",
    "reject",
    "Problem",
    "Reject",
    "Refused",
    "Foreign",
    "SystemExit",
    "_refusal",
}
"""Functions and records, beside errors, whose texts reach a user."""


def text_of(node: ast.expr) -> str | None:
    """A text as users see it, or None where the expression holds none."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [
            (
                "{" + ast.unparse(part.value) + "}"
                if isinstance(part, ast.FormattedValue)
                else ast.literal_eval(part)
            )
            for part in node.values
        ]
        return "".join(parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = text_of(node.left), text_of(node.right)
        return "".join(side or "{…}" for side in sides) if any(sides) else None
    if isinstance(node, ast.IfExp):
        sides = text_of(node.body), text_of(node.orelse)
        return " / ".join(side for side in sides if side) or None
    return None


def sentences(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(who says it, the text) for each text of more than one word."""
    raised = {node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = (
            node.func.attr
            if isinstance(node.func, ast.Attribute)
            else getattr(node.func, "id", "")
        )
        if (
            name in SPOKEN
            or name.endswith(("Error", "Lost", "NothingLeft"))
            or node in raised
        ):
            for argument in (*node.args, *(word.value for word in node.keywords)):
                text = text_of(argument)
                if text and " " in text.strip():
                    yield name, " ".join(text.split())


def page() -> str:
    """The whole page, as Markdown."""
    lines = [HEAD]
    for path in sorted((ROOT / "penstock").rglob("*.py")):
        told = list(sentences(ast.parse(path.read_text("utf-8"))))
        if told:
            lines.append(f"## {path.relative_to(ROOT / 'penstock').as_posix()}\n")
            lines += [f"- `{name}` {text}" for name, text in told]
            lines.append("")
    return "\n".join(lines)


def committed() -> str | None:
    """The page as the last commit has it; None where git does not know it."""
    try:
        shown = subprocess.run(
            ["git", "show", f"HEAD:{PAGE.relative_to(ROOT).as_posix()}"],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
    except OSError:
        return None
    return shown.stdout.decode("utf-8") if shown.returncode == 0 else None


def texts_in(paths: Iterable[Path]) -> Iterator[tuple[Path, int, str]]:
    """(file, line, text) of every piece of text in Python files, blanks as one space each."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path, node.lineno, " ".join(node.value.split())


def stale_quotes(
    before: str, now: str, tests: Iterable[Path], code: Iterable[Path]
) -> list[tuple[Path, int, str]]:
    """What tests quote of sentences that nothing says any more: (file, line, quote).

    Args:
        before, now: the page as it was, and as the code makes it.
        tests: their files.
        code: files whose texts are said still, on the page or not.
    """
    # A quote is of two words or more; one word is too common to tell.
    gone = "\n".join(sorted(set(before.splitlines()) - set(now.splitlines())))
    if not gone:
        return []
    quotes = [quote for quote in texts_in(tests) if " " in quote[2] and quote[2] in gone]
    if not quotes:
        return []
    said = "\n".join([now, *(text for _, _, text in texts_in(code))])
    return [quote for quote in quotes if quote[2] not in said]


def main() -> int:
    """Print the page; with `--check` say whether the one in `docs/` is the code's, and which tests quote what
    is no longer said.
    """
    if sys.argv[1:] != ["--check"]:
        print(page(), end="")
        return 0
    now, before = page(), committed()
    is_old = PAGE.read_text("utf-8") != now
    if is_old:
        print(
            "docs/messages.md is not what the code says: python -m tests.messages > docs/messages.md"
        )
    if before is None:
        print("no git here: what tests quote is not compared with the last commit's page")
        return int(is_old)
    files = (sorted((ROOT / folder).rglob("*.py")) for folder in ("tests", "penstock"))
    stale = stale_quotes(before, now, *files)
    for path, line, text in stale:
        print(f"{path.relative_to(ROOT)}:{line}: nothing says this any more: {text!r}")
    return int(is_old or bool(stale))


if __name__ == "__main__":
    sys.exit(main())
