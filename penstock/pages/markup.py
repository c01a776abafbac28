"""HTML by small functions: `tag("p", "text", class_="lead")`; texts are escaped, markup is not."""

from __future__ import annotations

from html import escape

_VOID = frozenset({"meta", "rect", "line"})


class Markup(str):
    """HTML that is safe to stand in a page as it is."""

    __slots__ = ()


def tag(name: str, /, *content: str, **attributes: str | int | float) -> Markup:
    """An element.

    Args:
        content: texts, which are escaped, and `Markup`.
        attributes: `class_` is `class`, and other underscores are hyphens.
    """
    words = "".join(
        f' {word.rstrip("_").replace("_", "-")}="{escape(_visible(str(value)), quote=True)}"'
        for word, value in attributes.items()
    )
    if name in _VOID and not content:
        return Markup(f"<{name}{words}>" if name == "meta" else f"<{name}{words}/>")
    return Markup(f"<{name}{words}>{join(*content)}</{name}>")


def join(*content: str) -> Markup:
    """Texts, escaped, and markup, as one."""
    return Markup(
        "".join(
            each if isinstance(each, Markup) else escape(_visible(each))
            for each in content
        )
    )


def _visible(text: str) -> str:
    """Characters that cannot be seen, or that would turn the line around, as their numbers."""
    return "".join(
        c if c.isprintable() or c in "\n\t " else f"\\u{{{ord(c):04x}}}" for c in text
    )


def page(title: str, style: str, body: Markup) -> str:
    """A whole page, which runs no script and fetches nothing."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("title", title),
        Markup(f"<style>{style}</style>"),
    )
    return f'<!doctype html>\n<html lang="en">{head}{tag("body", body)}</html>\n'
