"""Every reader, given damaged files by the hundred: a sentence or rows that are all accounted for, and never
a traceback, a hang, a dead process, or a row that is missing from the count. See `fuzzing` for how, and
`specimens` for what.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.safety import specimens
from tests.safety.fuzzing import Verdict, fuzz
from tests.safety.mutate import KINDS, mutate

QUICK = (
    "csv",
    "jsonl",
    "jsonl.gz",
    "parquet",
    "arrow",
    "arrow_stream",
    "zip",
    "tar",
    "tar.gz",
    "texts",
    "png",
    "jpeg",
    "tiff",
    "gif",
    "webp",
)
"""What the quick ring fuzzes; the others come in the slow one."""
GROUPS = 3


def _bad(verdicts: dict[str, Verdict]) -> str:
    found = [(name, *bad) for name, verdict in verdicts.items() for bad in verdict.bad]
    return "\n".join(
        f"{name}, damage {seed}: {outcome}: {text}"
        for name, seed, outcome, text in found[:5]
    )


def _fuzzed(names: list[str], start: int, stop: int) -> dict[str, Verdict]:
    """Two formats at a time, each in a child of its own."""
    with ThreadPoolExecutor(2) as pool:
        return dict(
            zip(names, pool.map(lambda name: fuzz(name, start, stop), names), strict=True)
        )


@pytest.mark.parametrize("group", range(GROUPS))
def test_damaged_files_of_each_usual_format(group: int) -> None:
    names = list(QUICK[group::GROUPS])
    verdicts = _fuzzed(names, 0, 60)
    assert not _bad(verdicts), _bad(verdicts)
    for name, verdict in verdicts.items():
        assert verdict.counts.total() == 60, name
        assert verdict.counts["refused"] or name in ("jsonl", "texts"), name


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_two_hundred_damaged_files_of_each_format(group: int) -> None:
    verdicts = _fuzzed(list(specimens.SPECIMENS)[group::GROUPS], 0, 200)
    assert not _bad(verdicts), _bad(verdicts)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", specimens.SPECIMENS)
def test_thousands_of_damaged_files(name: str) -> None:
    verdicts = _fuzzed([name], 0, 3_000)
    assert not _bad(verdicts), _bad(verdicts)


def test_whole_files_are_taken(tmp_path) -> None:
    """Else nothing above would mean anything."""
    for name, specimen in specimens.SPECIMENS.items():
        folder = tmp_path / name
        folder.mkdir()
        assert specimen.read(specimen.make(0), folder) == "", name


def test_the_mutator_gives_the_same_for_the_same_seed() -> None:
    data = specimens.csv()
    assert [mutate(data, n) for n in range(50)] == [mutate(data, n) for n in range(50)]
    assert len({mutate(data, n) for n in range(200)}) > 150
    assert mutate(b"", 1) == b"" and len(KINDS) >= 8
