"""Files that are no table: each is refused by a sentence that says what to do."""

from __future__ import annotations

import pickle

import pytest

from penstock.core.errors import SourceError
from penstock.formats.foreign import FOREIGN
from penstock.formats.shelf import endings
from penstock.formats.texts import format_of

ENDINGS = [ending for kind in FOREIGN for ending in kind.endings]
MAGIC = [start for kind in FOREIGN for start in kind.magic]


def test_no_ending_is_there_twice_or_a_format():
    assert len(ENDINGS) == len(set(ENDINGS))
    assert not set(ENDINGS) & set(endings())


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_is_refused_with_what_to_do(tmp_path, ending):
    file = tmp_path / f"shop.2024{ending.upper()}"
    file.write_bytes(b"a,b\n1,2\n")
    with pytest.raises(SourceError, match="which is not read as a table") as caught:
        format_of(str(file))
    said = caught.value.message
    assert str(file) in said and "{" not in said.replace("{type:", "").replace(
        "{image:", ""
    ).replace("{root:", "")
    assert said.endswith((".", ")")), said


@pytest.mark.parametrize("start", MAGIC)
def test_first_bytes_are_refused_whatever_the_ending(tmp_path, start):
    file = tmp_path / "shop"
    file.write_bytes(start + b"\0rest")
    with pytest.raises(SourceError, match="which is not read as a table"):
        format_of(str(file))


def test_a_pickle_is_never_opened(read):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    with pytest.raises(SourceError, match=r"may run code .* never opens one"):
        read(pickle.dumps(Evil()), name="frame.pkl")
