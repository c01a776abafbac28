"""Objects are encrypted, and open to those, whom the environment asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.core.encryption import object_options
from penstock.core.errors import StoreError, UserError
from penstock.core.store import Store
from tests.faults import faulty_s3


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"PENSTOCK_S3_ENCRYPTION": "rot13"}, "Use AES256, aws:kms or aws:kms:dsse"),
        ({"PENSTOCK_S3_ACL": "everyone"}, "bucket-owner-full-control"),
        ({"PENSTOCK_S3_KMS_KEY": "alias/x"}, "PENSTOCK_S3_ENCRYPTION is not set"),
        (
            {"PENSTOCK_S3_KMS_KEY": "alias/x", "PENSTOCK_S3_ENCRYPTION": "AES256"},
            "is AES256",
        ),
    ],
)
def test_what_s3_does_not_know_is_refused(environment: dict[str, str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        object_options(environment)


def test_every_object_of_a_store_is_encrypted_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_s3(monkeypatch, tmp_path) as line:
        monkeypatch.setenv("PENSTOCK_S3_ENCRYPTION", "aws:kms")
        monkeypatch.setenv("PENSTOCK_S3_KMS_KEY", "alias/penstock")
        monkeypatch.setenv("PENSTOCK_S3_ACL", "bucket-owner-full-control")
        store = Store(f"s3://{line.bucket}/penstock")
        store.write_text("index/alias", text="one")
        with store.draft("datasets/a/0123456789abcdef", manifest={"type": "x"}) as folder:
            # In parts, each of which is of the same object.
            (folder / "large").write_bytes(b"\0" * (17 << 20))
        assert store.shelf.create("leases/one", b"mine")
        keys = store.shelf.below("")
        assert len(keys) >= 4
        for key in keys:
            head = _head(store, key)
            assert head["ServerSideEncryption"] == "aws:kms", key
            assert head["SSEKMSKeyId"].endswith("alias/penstock"), key


def test_a_store_that_does_not_encrypt_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_s3(monkeypatch, tmp_path) as line:
        monkeypatch.setenv("PENSTOCK_S3_ENCRYPTION", "aws:kms")
        store = Store(f"s3://{line.bucket}/penstock")
        system = store.shelf.system
        call = system.call_s3

        def forgetful(method: str, *words: Any, **more: Any) -> Any:
            answer = call(method, *words, **more)
            answer.pop("ServerSideEncryption", None)
            return answer

        monkeypatch.setattr(system, "call_s3", forgetful)
        with pytest.raises(StoreError, match="does not encrypt them"):
            store.write_text("index/alias", text="one")
        assert not store.shelf.below("")


def _head(store: Store, key: str) -> dict[str, Any]:
    bucket, _, name = store.shelf.path(key).partition("/")
    head: dict[str, Any] = store.shelf.system.call_s3(
        "head_object", Bucket=bucket, Key=name
    )
    return head
