"""What a drafted recipe says of the source as a whole: how much was looked at, and what is odd about it."""

from __future__ import annotations

from penstock.inspect.sample import Sample
from penstock.inspect.wording import key, shown

_MOST_REASONS = 3


def looked_at(sample: Sample, rows: int, cut_from: int) -> str:
    """How many rows a look saw, of how many."""
    cut = f" (not {cut_from:,}, since they are wide)" if cut_from else ""
    if sample.rows is not None and sample.rows > rows:
        return f"{rows:,} rows{cut}, drawn from all {sample.rows:,}"
    drawn = "" if sample.complete or not sample.files else ", drawn from all over it"
    return f"{rows:,} rows{cut}{drawn}"


def source_notes(sample: Sample) -> list[str]:
    """Sentences for whoever reads the recipe: how the files are read, which rows could not be, which come
    more than once.
    """
    notes = []
    if sample.reading:
        words = ", ".join(
            f"{word}: {'null' if v is None else shown(v)}"
            for word, v in sample.reading.items()
        )
        notes.append(f"Found out from the files: {words}.")
    if sample.unread:
        notes.append(_unread(sample))
    if note := duplicate_note(sample):
        notes.append(note)
    return notes


def duplicate_note(sample: Sample) -> str:
    """A sentence about rows that come more than once; empty where there are none, or none were counted."""
    if sample.duplicates:
        of = f" of {sample.rows:,}" if sample.rows is not None else ""
        # "1 of 2,000 rows equals", but "1 row equals".
        row = "row" if sample.duplicates == 1 and not of else "rows"
        are = f"{row} {'equals' if sample.duplicates == 1 else 'equal'}"
        return (
            f"LOOK: {sample.duplicates:,}{of} {are} an earlier one in every column; not removed. Copies in"
            " the test split make a model look better than it is. To remove them:  clean: [deduplicate]"
        )
    return ""


def _unread(sample: Sample) -> str:
    count = sample.unread_rows
    reasons = [
        f"{some.rows:,} × {_brief(reason)} ({key(some.file)}, line {some.line})"
        for reason, some in list(sample.unread.items())[:_MOST_REASONS]
    ]
    more = len(sample.unread) - len(reasons)
    if more:
        reasons.append(f"{more} more {'reason' if more == 1 else 'reasons'}")
    rows = "row" if count == 1 else "rows"
    scope = "" if sample.rows is not None else " of those looked at"
    return (
        f"LOOK: {count:,} {rows}{scope} could not be read: {'; '.join(reasons)}. A run puts such rows into"
        " quarantine. If they are good rows, say in `source` how to read them (`delimiter`, `quote`,"
        " `header`, `encoding`)."
    )


def _brief(reason: str) -> str:
    return reason if len(reason) <= 120 else f"{reason[:117]}…"
