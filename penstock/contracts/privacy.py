"""What hides a person in a column: the family of anonymisers.

An anonymiser is one pure expression over one column, so that both engines and a bundle at serving compute
the same. It runs after `expect` and the cleaners that learn nothing, and before the split: what is fitted,
written or measured later sees its result alone. What is kept of a row before that (quarantine, messages) has
no value of a private column: the ledger withholds it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from penstock.contracts.part import Part
from penstock.core.errors import ContractError, UserError
from penstock.core.redact import learn

if TYPE_CHECKING:
    import ibis.expr.types as ir

FEWEST_KEY_CHARACTERS = 16
"""A shorter key could be found by trying all of them."""


class Anonymiser(Part):
    """How the values of a private column are hidden.

    Laws (penstock.testing.laws.anonymisers): a missing value stays missing; a row alone is hidden as in a
    batch; equal values are hidden alike, unless the row's own id is asked for; no value that is hidden shows
    in the result.
    """

    shelf: ClassVar[str] = "penstock.parts.anonymisers"
    at_serving: ClassVar[str] = "apply"
    """`apply`: a request brings the raw value, and it is hidden before the model sees it; `skip`: the model
    gets the value as it is.
    """
    is_dropped: ClassVar[bool] = False
    """Whether the column is gone afterwards; `protect` is then not called."""
    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Declarations of itself that the family's laws judge."""

    def key_name(self) -> str | None:
        """The variable of the environment that holds its key; None where it needs none."""
        return None

    @abstractmethod
    def protect(self, value: ir.Value, row_id: ir.StringValue) -> ir.Value:
        """The hidden values.

        Args:
            value: the column, of any type.
            row_id: of each row, for what must differ between equal values.

        Raises:
            ContractError: values of this type cannot be hidden so.
            UserError: the key is not in the environment, or is too short.
        """

    def key_check(self) -> str | None:
        """16 hexadecimal digits that change with the key, for a dataset's id; None without a key."""
        name = self.key_name()
        return None if name is None else key_of(name, "check")[:16]


def key_of(name: str, purpose: str) -> str:
    """A key for one purpose, derived from the one in the environment: 64 hexadecimal digits.

    HMAC-SHA-256 (RFC 2104), so that no purpose's key tells another's.

    Raises:
        UserError: the environment has none of that name, or it is too short.
    """
    key = os.environ.get(name, "")
    if len(key) < FEWEST_KEY_CHARACTERS:
        state = "is not set" if not key else f"has {len(key)} characters"
        raise UserError(
            f"The environment variable {name} {state}; a key of at least {FEWEST_KEY_CHARACTERS} characters"
            " is needed to hide private columns. Set it to a secret that stays the same, such as the output"
            " of `openssl rand -hex 32`."
        )
    learn(key)
    derived = hmac.new(key.encode(), purpose.encode(), hashlib.sha256).hexdigest()
    # It stands in expressions, and no message may show it.
    learn(derived)
    return derived


def refuse_type(anonymiser: str, value: ir.Value, wanted: str) -> ContractError:
    """The error for a column of a type that cannot be hidden so; the column's name is put before it."""
    return ContractError(
        f"`{anonymiser}` hides {wanted}; the column holds {value.type()}. Choose another way to hide it, such"
        " as `drop`."
    )
