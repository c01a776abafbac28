"""What a user names as a file to write is never a device, a pipe or a folder that would be replaced."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.core.errors import SourceError, StoreError, UserError
from penstock.core.store import Store, atomic_write
from penstock.formats.places import filesystem
from penstock.formats.write import TableWriter


@pytest.mark.parametrize("name", ["pipe.csv", "folder.csv", "link.csv"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "pipe.csv")
    before = os.lstat(tmp_path / name).st_mode
    with pytest.raises(UserError, match="would replace it"):
        atomic_write(tmp_path / name, "text")
    with pytest.raises(UserError, match="would replace it"):
        TableWriter(tmp_path / name, pa.schema([("a", pa.int64())]))
    assert os.lstat(tmp_path / name).st_mode == before
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe.csv").st_mode)


@pytest.mark.parametrize(
    "url", ["reference://x", "http://[::1", "reference://", "s3://", "https:///x.csv"]
)
def test_a_url_that_its_protocol_cannot_open_is_a_sentence(url: str) -> None:
    with pytest.raises(SourceError, match=re.escape(url)):
        filesystem(url)


@pytest.mark.parametrize("url", ["reference://x", "http://[", "s3://"])
def test_a_store_that_its_protocol_cannot_open_is_a_sentence(url: str) -> None:
    with pytest.raises((StoreError, UserError)):
        Store(url).has("bundles/0123456789abcdef")
