"""How objects are encrypted, and who may read them: what is asked of an S3 store with each object written.

    PENSTOCK_S3_ENCRYPTION    AES256, aws:kms or aws:kms:dsse
    PENSTOCK_S3_KMS_KEY       id, alias or ARN of the key, with one of the two last
    PENSTOCK_S3_ACL           a canned access list, such as bucket-owner-full-control

They come from the environment, so that they hold for every process that writes, whatever names the store: a
recipe, a command or Python. The words of S3 are those of "PutObject" in its API reference.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from penstock.core.errors import UserError

_ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
_ACCESS = (
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
)
ENCRYPTION = "PENSTOCK_S3_ENCRYPTION"
KEY = "PENSTOCK_S3_KMS_KEY"
ACCESS = "PENSTOCK_S3_ACL"


def object_options(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The words of S3's `PutObject` that the environment asks for; empty where it asks for nothing.

    Raises:
        UserError: a variable has a value that S3 does not know, or a key is given without its encryption.
    """
    encryption = _one_of(ENCRYPTION, _ENCRYPTIONS, environment)
    access = _one_of(ACCESS, _ACCESS, environment)
    key = environment.get(KEY, "").strip()
    if key and not encryption.startswith("aws:kms"):
        raise UserError(
            f"{KEY} names a key, but {ENCRYPTION} is {encryption or 'not set'}. Set {ENCRYPTION}=aws:kms, or"
            f" leave {KEY} out."
        )
    words = {
        "ServerSideEncryption": encryption,
        "SSEKMSKeyId": key,
        "ACL": access,
    }
    return {word: value for word, value in words.items() if value}


def _one_of(name: str, known: tuple[str, ...], environment: Mapping[str, str]) -> str:
    value = environment.get(name, "").strip()
    if value and value not in known:
        raise UserError(
            f"{name} is {value!r}, which S3 does not know. Use {', '.join(known[:-1])} or {known[-1]}."
        )
    return value


__all__ = ["ACCESS", "ENCRYPTION", "KEY", "object_options"]
