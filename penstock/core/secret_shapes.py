r"""Shapes of secrets: one table of how a credential looks in a text, whoever wrote it.

URLs come first (`core.secret_urls`). Everything else is a row of `SHAPES` (`by_shape`): a pattern, what a
text must hold for it to be tried at all, and what is blanked of a hit. Names of fields are judged by
`core.secret_names`.

Every pattern is linear in the text: repetitions are bounded, or cannot begin anew at each of their
characters.

What this file refuses to know: which values this process was given (`core.secret_values`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from penstock.core.lazy_patterns import lazily
from penstock.core.secret_clients import ATTACHED, ATTACHED_HINTS, BEHIND, BEHIND_HINTS
from penstock.core.secret_names import is_ordinary, is_plain, is_secret_name
from penstock.core.secret_urls import BLANK, QUERY, blank_query, is_secret_parameter

# `scheme://user:` and password, percent-encoded once to four times over (`%25` is an
# encoded `%`). What stays is group 1, up to the colon, and group 2, the encoded `@`.
_ENCODED = lazily(
    r"(%(?:25){0,3}3A(?:%(?:25){0,3}2F){2}(?:(?!%(?:25){0,3}(?:3A|2F|40))[^\s&/@]){0,200}"
    r"%(?:25){0,3}3A)[^\s&/@]{1,400}?(%(?:25){0,3}40)",
    re.IGNORECASE,
)
# Mark (`?`, `&`, `#`), name, `=` and value, all percent-encoded; the value ends at the
# next such mark.
_ENCODED_QUERY = lazily(
    r"""(%(?:25){0,3}(?:3F|26|23))([A-Za-z][\w.-]{0,80})(%(?:25){0,3}3D)"""
    r"""((?:(?!%(?:25){0,3}(?:26|23))[^\s&#"'<>`])+)""",
    re.IGNORECASE,
)
# Groups: user, or two words joined by a colon; password; a host of one word, if it is
# one. `(?!sha\d)` spares digests of container images, such as `name:tag@sha256:…`.
_BARE = lazily(
    r"""(?<![\w/@:.+%-])((?://)?[\w.+-]{1,60}|[\w.+-]{1,30}:[\w.+-]{1,60})"""
    r""":([^\s:@/"'<>`,;=()\[\]{}]{4,200})@"""
    r"""(?!sha\d)(?=(?:[\w-]+\.)+[A-Za-z]|localhost|[\w.-]+[:/]|"""
    r"""([A-Za-z][\w-]{0,60})(?:[\s"'`,;)\]}>!?]|\.(?:\s|\Z)|\Z))"""
)
"""A credential and its host without the scheme, as drivers of databases tell it. A host of one word says
little, so the password must look like one (`_blank_bare`).
"""
_NO_USERS = frozenset(
    {
        "acct",
        "bcc",
        "cc",
        "docker",
        "file",
        "from",
        "git",
        "image",
        "im",
        "mailto",
        "npm",
        "oci",
        "pip",
    }
    | {"pkg", "pres", "reply-to", "sip", "sips", "to", "xmpp"}
)
"""Words before the colon of an address, or of a package, that is no credential."""
# `v1.2.3`, `12:30`, `2026-11-29`: marks and digits that are no password.
_VERSION = lazily(r"v?\d+(?:[.:_-]\d+)*[a-z]{0,5}\d{0,3}\Z", re.IGNORECASE)
# Characters below which a word beside a one-word host is not taken for a password.
_WEAK_LENGTH = 6


@dataclass(frozen=True)
class Shape:
    """How a secret looks in a text.

    Args:
        hints: of these, in lower case, a text holds one, or the shape is not in it.
        pattern: finds a candidate.
        blank: what stands in the place of a hit; the hit itself where it is no secret.
        walk: what goes through a text, where a pattern alone cannot say where a hit ends.
    """

    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    blank: Callable[[re.Match[str]], str] | str = BLANK
    walk: Callable[[str], str] | None = None

    def blanked(self, text: str) -> str:
        """`text` with every credential of this shape blanked."""
        return (
            self.walk(text)
            if self.walk is not None
            else self.pattern.sub(self.blank, text)
        )


def _if_named(
    name: int, value: int, *, careful: bool = False
) -> Callable[[re.Match[str]], str]:
    """Blank the group `value` of a hit where its group `name` is a telling name.

    Args:
        careful: the name may be that of a column, or of a word of a recipe; a value that is a plain word is
            none.
    """

    def blank(match: re.Match[str]) -> str:
        # Options come with their dashes, which tell nothing.
        given, secret = match[name].lstrip("-"), match[value]
        # A value that another shape has blanked in part, such as a URL, keeps its
        # readable rest.
        if not is_secret_name(given) or (careful and is_plain(secret)) or BLANK in secret:
            return match[0]
        # Positions within the hit: the rest of it is kept as it stands.
        start, end = match.start(value) - match.start(), match.end(value) - match.start()
        return f"{match[0][:start]}{_inside(secret)}{match[0][end:]}"

    return blank


def _inside(value: str) -> str:
    """The blank for a value: within quotes, where the value has them."""
    mark = value[:1]
    return (
        f"{mark}{BLANK}{mark}"
        if mark in "\"'" and len(value) > 1 and value[-1] == mark
        else BLANK
    )


def _blank_assigned(match: re.Match[str]) -> str:
    # Brackets may cling to a value at the end of a list or a sentence.
    is_blank = match[2].strip(",.)]}") == BLANK
    return (
        f"{match[1]}={BLANK}"
        if not is_blank and is_secret_name(match[1].lstrip("-"))
        else match[0]
    )


def _blank_option(match: re.Match[str]) -> str:
    # --secret names a Secret of Kubernetes
    named = match[1] != "--secret" and is_secret_name(match[1].lstrip("-"))
    return f"{match[1]} {BLANK}" if named else match[0]


def _blank_listed(match: re.Match[str]) -> str:
    named = match[2] != "--secret" and is_secret_name(match[2].lstrip("-"))
    return (
        f"{match[0][: match.start(3) - match.start()]}{_inside(match[3])}"
        if named
        else match[0]
    )


def _blank_header(match: re.Match[str]) -> str:
    # A mere scheme is no secret; its token follows, and has a shape of its own.
    return (
        f"{match[1]}{match[2]}{BLANK}"
        if match[3].strip().lower() not in ("bearer", "basic", "")
        else match[0]
    )


def _blank_scheme(match: re.Match[str]) -> str:
    return (
        # "the token expired" and "basic usage" are sentences, not credentials.
        match[0] if is_ordinary(match[3].rstrip(".")) else f"{match[1]}{match[2]}{BLANK}"
    )


def _blank_said(match: re.Match[str]) -> str:
    bare = match[3].strip("\"'`")
    return (
        match[0]
        if is_plain(bare) or bare.startswith(BLANK)
        else f"{match[1]}{match[2]}{_inside(match[3])}"
    )


def _blank_bare(match: re.Match[str]) -> str:
    user, password, host = match[1], match[2], match[3]
    # Also `cc:anna@…` and `docker:tag@…`, which have the very form of a credential.
    if is_ordinary(password) or password == BLANK or user.lower() in _NO_USERS:
        return match[0]
    # A host of one word proves little, so user and password must both look the part.
    if host is not None and not (user[:1].isalpha() and _is_mixed(password)):
        return match[0]
    return f"{user}:{BLANK}@"


def _is_mixed(value: str) -> bool:
    """Whether a word looks like a password by itself: long, of several kinds of
    characters, no version, time or column.
    """
    # Lower case, upper case, digit, mark: a password mixes at least two.
    kinds = (str.islower, str.isupper, str.isdigit, lambda letter: not letter.isalnum())
    is_several = sum(any(map(kind, value)) for kind in kinds) > 1
    return (
        len(value) >= _WEAK_LENGTH
        and is_several
        and not _VERSION.match(value)
        and not _is_column(value)
    )


def _blank_given(match: re.Match[str]) -> str:
    return match[0] if BLANK in match[2] else f"{match[1]}{_inside(match[2])}"


_COLUMN = lazily(r"[a-z]+(?:[_-][a-z0-9]+)+\Z|[A-Z]?[a-z]+(?:[A-Z][a-z]+)+\Z")


def _is_column(value: str) -> bool:
    """Whether a word is written as columns and packages are: `user_name`, `userName`, `react-dom`."""
    return _COLUMN.match(value) is not None


def _blank_encoded_query(match: re.Match[str]) -> str:
    return (
        f"{match[1]}{match[2]}{match[3]}{BLANK}"
        if is_secret_parameter(match[2], match[4])
        else match[0]
    )


# A name of a field, and strings as Python and JSON write them, on one line; parts of
# patterns below.
_FIELD = r"[A-Za-z_][\w.-]{0,80}"
_QUOTE = r"[bBuUrR]{0,2}"
_STRING = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
# `name=value`, where the value may be quoted, in braces (ODBC), or a list.
_ASSIGNED = lazily(
    r"""(?<![\w.-])([A-Za-z_-][\w.-]{0,200})="""
    r"""("[^"\n]*"|'[^'\n]*'|\{[^}\n]*\}|[\[(][^\])\n]*[\])]|[^\s&;"'<>`]+)"""
)
# A name and what joins it to its value: a colon, a colon and a new line (YAML), `=`,
# `->`, `=>`.
_NAMED = lazily(
    r"""(?<![\w.'"/-])([A-Za-z_][\w-]{0,80})(?::[ \t]{1,8}|:[ \t]{0,4}\r?\n[ \t]{1,40}|:(?![\s/:])"""
    r"""|[ \t]{1,4}(?::[ \t]{0,8}|=(?!=)[ \t]{0,8}|[=-]>[ \t]{0,8})|=>?[ \t]{1,8}|[=-]>)"""
)
# An optional YAML tag; then a block scalar (`|`, `>`) with its first line, a string, or
# a bare word.
_VALUE = lazily(
    r"""(?:!!?\w{1,20}[ \t]+)?([|>][+-]?[ \t]*\r?\n[ \t]{1,40}[^\n]{1,1000}|"""
    rf"""{_STRING}|[^\s,;"'\]}}<>`]{{1,1000}})"""
)


# A tabulator may stand as itself or escaped, with up to four backslashes, in a quoted
# table.
_CELL_NAME = lazily(
    rf"""(?:(?<![^\n\t"'])|(?<=\\t))({_FIELD})[ ]{{0,4}}(?:\t|\\{{1,4}}t)[\t ]{{0,8}}"""
)
# Three characters at least, and it must fill its cell.
_CELL = lazily(r"""([^\s\\"'<>`]{3,400})(?=[\t\n\r"'\\]|[ ]{1,8}(?:[\t\n\r]|\Z)|\Z)""")


def _blank_after(
    text: str,
    names: re.Pattern[str],
    values: re.Pattern[str],
    is_harmless: Callable[[str], bool],
) -> str:
    """Blank each value that stands behind a telling name.

    Args:
        names: a name, and what is between it and its value.
        values: a value, as its first group.
        is_harmless: whether a value is none.
    """
    parts, at = [], 0
    for named in names.finditer(text):
        # It lies within what the last hit blanked.
        if named.start() < at or not is_secret_name(named[1]):
            continue
        value = values.match(text, named.end())
        if value is None or is_harmless(value[1]) or BLANK in value[1]:
            continue
        # Pieces are joined once at the end, so many hits cost no more than one pass.
        parts += [text[at : value.start(1)], _inside(value[1])]
        at = value.end(1)
    return "".join([*parts, text[at:]])


def _blank_fields(text: str) -> str:
    """Fields of YAML, TOML and the like: a telling name, a mark, and a value that is no plain word."""
    return _blank_after(text, _NAMED, _VALUE, is_plain)


def _blank_cells(text: str) -> str:
    """Cells of a table with tabulators: a telling name, and behind it a value that is no word or column."""
    return _blank_after(
        text, _CELL_NAME, _CELL, lambda value: is_plain(value) or _is_column(value)
    )


# Each needs a word in `_KNOWN_HINTS`, in lower case: without one it is never tried.
_KNOWN = (
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",
    r"gh[opsur]_[A-Za-z0-9]{20,}",
    r"github_pat_\w{20,}",
    r"glpat-[\w-]{16,}",
    r"xox[abposr]-[\w-]{10,}",
    r"xapp-[\w-]{10,}",
    r"hf_[A-Za-z0-9]{20,}",
    r"sk-[\w-]{20,}",
    r"[sr]k_(?:live|test)_\w{16,}",
    r"AIza[\w-]{30,}",
    r"ya29\.[\w-]{16,}",
    r"GOCSPX-[\w-]{20,}",
    r"SG\.[\w-]{16,}\.[\w-]{16,}",
    r"npm_[A-Za-z0-9]{30,}",
    r"pypi-AgE[\w-]{16,}",
    r"dapi[0-9a-f]{32}",
    r"do[opr]_v1_[0-9a-f]{40,}",
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    r"AGE-SECRET-KEY-1[A-Z0-9]{40,}",
    r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
    r"\d{8,10}:AA[\w-]{32,}",
)
"""Tokens with a well-known beginning, of clouds and services."""
_KNOWN_HINTS = (
    "akia",
    "asia",
    "gho_",
    "ghp_",
    "ghr_",
    "ghs_",
    "ghu_",
    "github_",
    "glpat",
    "xox",
    "xapp-",
    "hf_",
    "sk-",
    "k_live_",
    "k_test_",
    "aiza",
    "ya29.",
    "gocspx",
    "sg.",
    "npm_",
    "pypi-",
    "dapi",
    "_v1_",
    "shp",
    "age-secret",
    "eyj",
    ":aa",
)

SHAPES: tuple[Shape, ...] = (
    # What is encoded comes first: once a later shape has blanked a part of it, these
    # would no longer fit.
    Shape("a URL inside another", ("%40", "%2540", "%252540"), _ENCODED, rf"\1{BLANK}\2"),
    Shape("its query", ("%3d", "%253d", "%25253d"), _ENCODED_QUERY, _blank_encoded_query),
    Shape(
        "a private key",
        ("private key",),
        lazily(
            # To the end of the text where the end line is missing: half a key is still
            # a secret.
            r"-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}.*?(?:-{4,5} ?END [A-Z0-9"
            r" ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}|\Z)",
            re.DOTALL,
        ),
    ),
    Shape(
        "a key of PuTTY",
        ("putty-user-key",),
        lazily(r"PuTTY-User-Key-File-\d.*?(?:Private-MAC: \w+|\Z)", re.DOTALL),
    ),
    Shape(
        "a header",
        ("authorization", "cookie", "x-"),
        lazily(
            r"""(?<![\w.-])((?:proxy-)?authorization|(?:set-)?cookie|"""
            r"""x-[\w-]{0,60}(?:key|token|secret|signature))(\s{0,4}[:=]\s{0,4})"""
            r"""((?:="[^"\n]*"|[^\n"'<>])+)""",
            re.IGNORECASE,
        ),
        _blank_header,
    ),
    Shape(
        "a scheme of authorization",
        ("bearer", "basic", "token"),
        lazily(
            # A line break is taken only after `bearer` and `basic`, since "token" ends
            # many a line of prose.
            r"\b(bearer|basic|token)((?<=[cr])[ \t]{0,4}\r?\n[ \t]{0,8}|[ \t]+)([A-Za-z0-9._~+/=-]{6,})",
            re.IGNORECASE,
        ),
        _blank_scheme,
    ),
    Shape("a parameter", ("=",), QUERY, blank_query),
    Shape("name=value", ("=",), _ASSIGNED, _blank_assigned),
    Shape(
        "--name value",
        ("--",),
        lazily(
            r"""(?<![\w-])(--[A-Za-z][\w-]{0,80})(?:[ \t]|\\\r?\n)+"""
            r"""("[^"\n]*"|'[^'\n]*'|[^\s"'<>`\\-][^\s"'<>`]*)"""
        ),
        _blank_option,
    ),
    Shape(
        "'--name', 'value'",
        ("'--", '"--'),
        lazily(rf"""(["'])(--[A-Za-z][\w-]{{0,80}})\1\s{{0,4}},\s{{0,4}}({_STRING})"""),
        _blank_listed,
    ),
    Shape(
        "-u user:password",
        ("-u", "user"),
        lazily(
            # The empty group keeps the numbering that `_blank_said` expects.
            r"""(?<!\S)((?:-u|--user|--proxy-user)[ \t=]+[^\s:"']{1,80}:)()([^\s"']{1,200})"""
        ),
        _blank_said,
    ),
    Shape("-pPASSWORD of a client", ATTACHED_HINTS, ATTACHED, _blank_given),
    Shape("-p PASSWORD of a client", BEHIND_HINTS, BEHIND, _blank_given),
    Shape("name, tabulator, value", ("\t", "\\t"), _CELL_NAME, walk=_blank_cells),
    Shape(
        "'name': 'value'",
        ("':", '":', "' :", '" :'),
        lazily(rf"""(["'])({_FIELD})\1\s{{0,4}}:\s{{0,4}}{_QUOTE}({_STRING})"""),
        _if_named(2, 3),
    ),
    Shape(
        "'name': ['value']",
        ("':", '":', "' :", '" :'),
        lazily(
            rf"""(["'])({_FIELD})\1\s{{0,4}}:\s{{0,4}}[\[(]([^\])\n]{{1,2000}})[\])]"""
        ),
        _if_named(2, 3, careful=True),
    ),
    Shape(
        "('name', 'value')",
        ("',", '",', "' ,", '" ,'),
        lazily(
            rf"""\({_QUOTE}(["'])({_FIELD})\1\s{{0,4}},\s{{0,4}}{_QUOTE}({_STRING})\s{{0,4}}\)"""
        ),
        _if_named(2, 3, careful=True),
    ),
    Shape(
        "JSON in JSON",
        ('\\"', "\\'"),
        lazily(
            rf"""(\\{{1,7}}["'])({_FIELD})\1\s{{0,4}}:\s{{0,4}}(\\{{1,7}}["'])((?:(?!\3)[^\n]){{1,1000}})\3"""
        ),
        _if_named(2, 4),
    ),
    Shape("name: value", (":", "=", "->"), _NAMED, walk=_blank_fields),
    Shape(
        "a sentence",
        ("password", "passphrase", "secret", "api key", "access key", "access token"),
        lazily(
            r"""\b((?:password|passphrase|passwd|secret(?: access)?(?: key)?|"""
            r"""api key|access key|access token))"""
            rf"""(\s{{1,3}}(?:is|was|of)\s{{1,3}}|\s{{1,3}}(?=["']))({_STRING}|[^\s"'<>`]{{1,400}})""",
            re.IGNORECASE,
        ),
        _blank_said,
    ),
    Shape(
        ".netrc",
        ("password",),
        lazily(r"(\blogin\s{1,4}\S{1,80}\s{1,4}password)(\s{1,4})([^\s\"']{1,200})"),
        _blank_said,
    ),
    Shape(
        "<name>value</name>",
        ("</",),
        lazily(r"<([A-Za-z][\w:-]{0,80})>([^<]{1,4000})</\1>"),
        _if_named(1, 2),
    ),
    Shape("user:password@host", ("@",), _BARE, _blank_bare),
    Shape(
        "a webhook",
        ("hooks.slack.com", "/api/webhooks/", "webhook.office.com"),
        lazily(
            r"((?:hooks\.slack\.com/(?:services|workflows)|discord(?:app)?\.com/api/webhooks|"
            r"webhook\.office\.com/webhookb2)/)[\w/@%-]+"
        ),
        rf"\1{BLANK}",
    ),
    Shape(
        "a key of an Azure account",
        ("==",),
        # 64 bytes in base64 are 86 characters and two `=`.
        lazily(r"(?<![A-Za-z0-9+/=-])[A-Za-z0-9+/]{86}=="),
    ),
    Shape(
        "a well-known beginning",
        _KNOWN_HINTS,
        lazily(rf"(?<![A-Za-z0-9])(?:{'|'.join(_KNOWN)})"),
    ),
)
"""Tried in this order; what one has blanked the next leaves alone."""


def parameters_in(text: str) -> Iterator[str]:
    """The values of telling parameters in a text: of a URL's query, of `name=value`."""
    for name, value in (*QUERY.findall(text), *_ASSIGNED.findall(text)):
        if is_secret_parameter(name.lstrip("-"), value):
            yield value.strip("\"'{}")


def by_shape(text: str) -> str:
    """A text with everything blanked that has one of the shapes, URLs apart."""
    # Lowered once: blanking adds no hint, so the first text decides for every shape.
    lowered = text.lower()
    for shape in SHAPES:
        if any(hint in lowered for hint in shape.hints):
            text = shape.blanked(text)
    return text
