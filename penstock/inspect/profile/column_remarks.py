"""What counts over all rows say of one column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from penstock.inspect.draft import flow
from penstock.inspect.profile.column_quirks import quirks
from penstock.inspect.profile.measure import Measures
from penstock.inspect.profile.picture_remarks import picture_remarks
from penstock.inspect.profile.records import Remark
from penstock.inspect.profile.suspicions import DAMAGE, PERSONAL, masked
from penstock.inspect.profile.variants import variants
from penstock.inspect.raw_column import MARKERS, Finding, Look
from penstock.inspect.wording import figure, key, quoted, shown

Remarks = Iterator[Remark]

_HALF = 0.5
_FEW = 10
_DAMAGED = {
    "mojibake": "characters that come of reading UTF-8 as another encoding (Ã©, â€™, �)",
    "invisible": "invisible characters (a byte order mark, zero-width spaces)",
    "control": "control characters",
    "markup": "HTML tags or entities",
}
_MENDING = {
    "mojibake": "source: {encoding: …}: name the encoding in which the file was written",
    "markup": "derive: a column without them, by regexp_replace",
}


def column_remarks(
    facts: Mapping[str, Any], finding: Finding | None, measures: Measures, look: Look
) -> Remarks:
    """Findings of one column, over all rows.

    Args:
        facts: of the column, of `Measures.columns`.
        finding: what `look` says of it.
        measures: of all rows, for a column's own texts.
        look: the column in the sample.
    """
    yield from _name(facts)
    yield from _missing(facts, finding)
    kind = facts["measured_as"]
    judges: dict[str, Callable[[], Remarks]] = {
        "text": lambda: _text(facts, finding, measures, look),
        "number": lambda: _number(facts, finding),
        "moment": lambda: _moment(facts),
        "image": lambda: picture_remarks(facts),
    }
    if kind in judges:
        yield from judges[kind]()


def _name(facts: Mapping[str, Any]) -> Remarks:
    name = facts["name"]
    odd = [c for c in name if not c.isprintable() or c == "\ufeff"]
    if odd:
        codes = ", ".join(f"U+{ord(c):04X}" for c in dict.fromkeys(odd))
        mark = " (a byte order mark)" if "\ufeff" in odd else ""
        yield Remark(
            "warning",
            "name",
            name,
            f"its name has an invisible character, {codes}{mark}: a recipe must write it, too",
            {"characters": codes},
            f"{key(name)}: write the name so in `inputs` with `column`",
        )


def _missing(facts: Mapping[str, Any], finding: Finding | None) -> Remarks:
    rows, gone = facts["rows"], facts["missing"]
    if not gone:
        return
    # A column that is left out since it is empty is told by `look`.
    if gone == rows and finding is not None and finding.role == "constant":
        return
    share = gone / rows
    yield Remark(
        "warning" if share >= _HALF else "note",
        "missing",
        facts["name"],
        f"missing in {gone:,} of {rows:,} rows ({share:.1%})",
        {"rows": gone, "share": round(share, 4)},
    )


def _text(
    facts: Mapping[str, Any], finding: Finding | None, measures: Measures, look: Look
) -> Remarks:
    name, suspicious = facts["name"], facts["suspicions"]
    private = finding is not None and finding.role == "personal"
    for kind in PERSONAL:
        # A column that is personal as a whole is told by `look`.
        if kind in suspicious and not private:
            rows = "row" if suspicious[kind] == 1 else "rows"
            yield Remark(
                "error",
                "personal",
                name,
                f"{kind} in {suspicious[kind]:,} {rows}",
                {"what": kind, "rows": suspicious[kind]},
                f"leave {key(name)} out of `inputs`, or derive it without them",
            )
    for kind in DAMAGE:
        if kind in suspicious:
            yield Remark(
                "warning",
                kind,
                name,
                f"{_DAMAGED[kind]} in {suspicious[kind]:,} of {facts['rows']:,} rows",
                {"rows": suspicious[kind]},
                _MENDING.get(kind, "derive: a column without them, by regexp_replace"),
            )
    yield from _stand_ins(facts, finding, measures, look)
    if finding is None or finding.type != "set":
        yield from _mixed(facts, finding, measures)
    if not private:
        yield from quirks(facts, finding, measures.counts_of(name))
    if "padded" in suspicious:
        yield Remark(
            "note",
            "spaces",
            name,
            f"spaces around the text in {suspicious['padded']:,} rows",
            {"rows": suspicious["padded"]},
            f"clean: [{{type: trim, columns: {flow(name)}}}]",
        )
    if not private and (
        finding is None or finding.type not in ("text", "number", "timestamp")
    ):
        yield from _spellings(facts, finding, measures)


def _stand_ins(
    facts: Mapping[str, Any], finding: Finding | None, measures: Measures, look: Look
) -> Remarks:
    """Texts that stand for a missing value, and empty ones."""
    name, suspicious = facts["name"], facts["suspicions"]
    if "blank" in suspicious:
        yield Remark(
            "note",
            "blank",
            name,
            f"empty text in {suspicious['blank']:,} rows: it stands for a missing value",
            {"rows": suspicious["blank"]},
        )
    counts = measures.counts_of(name) if "marker" in suspicious or look.markers else {}
    # Where `look` takes a marker for an answer, it is one.
    known = {m.lower() for m in look.markers}
    marked: dict[str, int] = {}
    for text, rows in counts.items():
        plain = text.strip()
        if plain.lower() in known or (plain.lower() in MARKERS and known):
            marked[plain] = marked.get(plain, 0) + rows
    if marked:
        words = ", ".join(f"{shown(m)} ({n:,} rows)" for m, n in list(marked.items())[:5])
        stand = "stands" if len(marked) == 1 else "stand"
        options = {**(finding.options if finding else {}), "na": sorted(marked)}
        entry = {"type": (finding.type if finding else None) or "category", **options}
        yield Remark(
            "warning",
            "markers",
            name,
            f"{words} {stand} for a missing value",
            {"rows": sum(marked.values()), "values": marked},
            f"inputs: {{{key(name)}: {flow(entry)}}}",
        )


def _mixed(
    facts: Mapping[str, Any], finding: Finding | None, measures: Measures
) -> Remarks:
    """Numbers and texts in one column."""
    suspicious = facts["suspicions"]
    numbers = suspicious.get("number", 0)
    there = facts["rows"] - facts["missing"] - suspicious.get("blank", 0)
    others = there - numbers
    if not numbers or not others or numbers < 0.05 * there:
        return
    # Codes and free text have numbers among them by right.
    if numbers < _HALF * there and (finding is None or finding.type != "number"):
        return
    counts = measures.counts_of(facts["name"])
    words = [t for t in counts if t.strip() and not _is_number(t.strip())]
    example = (
        f", such as {shown(masked(words[0]))} ({counts[words[0]]:,} rows)"
        if words
        else ""
    )
    yield Remark(
        "warning",
        "mixed",
        facts["name"],
        f"numbers in {numbers:,} rows and other texts in {others:,}{example}",
        {"numbers": numbers, "others": others},
        f"inputs: {{{key(facts['name'])}: {{type: number, na: {flow(words[:3])}}}}}"
        if len(words) <= 3 and all(masked(word) == word for word in words)
        else "",
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _spellings(
    facts: Mapping[str, Any], finding: Finding | None, measures: Measures
) -> Remarks:
    if (
        facts["distinct"] < 2
        or facts["suspicions"].get("number", 0) > _HALF * facts["rows"]
    ):
        return
    counts = measures.counts_of(facts["name"])
    pairs = variants(counts)
    if not pairs:
        return
    rows = sum(n for _, _, n in pairs)
    text, usual = masked(pairs[0][0]), masked(pairs[0][1])
    # The first few show how it is written.
    mended = [(a, b) for a, b, _ in pairs if shown(masked(a)) == quoted(a)][:3]
    yield Remark(
        "warning",
        "variants",
        facts["name"],
        f"{len(pairs):,} spellings ({rows:,} rows) look like another, commoner one, such as {shown(text)} for"
        f" {shown(usual)}",
        {
            "rows": rows,
            "pairs": [[shown(masked(a)), shown(masked(b)), n] for a, b, n in pairs[:20]],
        },
        f"clean: [{{type: replace, columns: {flow(facts['name'])}, values: {flow(dict(mended))}}}]",
    )


def _number(facts: Mapping[str, Any], finding: Finding | None) -> Remarks:
    name = facts["name"]
    if facts.get("infinite"):
        yield Remark(
            "warning",
            "infinite",
            name,
            f"infinite in {facts['infinite']:,} rows",
            {"rows": facts["infinite"]},
        )
    known = finding is not None and finding.type is None
    if facts.get("distinct") == 1 and not known:
        yield Remark(
            "warning",
            "constant",
            name,
            "one value in all rows that have any",
            {},
            f"leave {key(name)} out of `inputs`",
        )
    far = facts.get("outliers")
    if not far or known or (finding is not None and finding.type != "number"):
        return
    rows = far["low"] + far["high"]
    if rows:
        low, high = far["fences"]
        yield Remark(
            "note",
            "outliers",
            name,
            f"{rows:,} rows lie far outside (below {_fence(low)} or above {_fence(high)}, three times the"
            f" quartiles'"
            f" distance); the least is {figure(facts['min'])}, the greatest {figure(facts['max'])}",
            {"rows": rows, "low": far["low"], "high": far["high"]},
            f"clean: [{{type: clip_outliers, columns: {flow(name)}}}]",
        )


def _fence(value: float) -> str:
    """Four digits, the others zero: no exponent for thousands."""
    return figure(float(f"{value:.4g}"))


def _moment(facts: Mapping[str, Any]) -> Remarks:
    name, order = facts["name"], facts["order"]
    pairs = order["forward"] + order["same"] + order["back"]
    # Rows that merely have a date stand in any order.
    if not pairs or order["forward"] + order["same"] < 0.9 * pairs:
        return
    if order["sorted"]:
        step = (
            f", a step of {_seconds(order['step_seconds'])}"
            if "step_seconds" in order
            else ""
        )
        where = f" of each of {order['files']:,} files" if order["files"] > 1 else ""
        yield Remark(
            "note",
            "time order",
            name,
            f"the rows{where} stand in its order{step}",
            {"files": order["files"]},
            f"split: {{by: time, on: {flow(name)}}}",
        )
    else:
        yield Remark(
            "warning",
            "time order",
            name,
            f"the rows stand in its order but for {order['back']:,} that go back",
            {"back": order["back"]},
        )
    if order.get("gaps"):
        longest = order["longest_gaps_seconds"][0]
        yield Remark(
            "warning",
            "gaps",
            name,
            f"{order['gaps']:,} gaps in a step of {_seconds(order['step_seconds'])}; the longest is"
            f" {_seconds(longest)}",
            {"gaps": order["gaps"], "longest_seconds": longest},
        )
    if order["same"] and "step_seconds" in order:
        yield Remark(
            "note",
            "repeated moments",
            name,
            f"{order['same']:,} rows have the moment of the row before",
            {"rows": order["same"]},
        )


def _seconds(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = seconds / size
            return f"{count:,.4g} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:,.4g} s"
