"""Every sentence that Penstock says, on one page; `python -m tests.messages > docs/messages.md` writes it
anew.

A reviewer reads the page in one sitting, and a translator or a searcher finds each sentence as users see it.
`make lint` compares it with the code. What is filled in stands in braces.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
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
            or name in ("TooDear", "NoRows", "MissingPackage")
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


def main() -> int:
    """Print the page; with `--check` say whether the one in `docs/` is the code's."""
    if sys.argv[1:] != ["--check"]:
        print(page(), end="")
        return 0
    if PAGE.read_text("utf-8") == page():
        return 0
    print(
        "docs/messages.md is not what the code says: python -m tests.messages > docs/messages.md"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
