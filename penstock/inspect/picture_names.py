"""Columns of texts that name picture files: pictures to be loaded, or masks, which no feature answers."""

from __future__ import annotations

import re

from penstock.inspect.raw_column import Finding, Look
from penstock.inspect.wording import key, shown

_PICTURE = re.compile(r"[^\n]*[^/\\\n]\.(jpe?g|png|gif|bmp|webp|tiff?)", re.IGNORECASE)
_MASK = re.compile(
    r"(^|[^a-z])(masks?|segm(entation)?s?|annotations?)([^a-z]|$)", re.IGNORECASE
)
_MOST = 400
_SHARE = 0.9


def names_pictures(look: Look) -> bool:
    """Whether nine texts in ten are the names or paths of picture files."""
    if not look.is_text or not look.present:
        return False
    like = sum(
        count
        for text, count in look.present.items()
        if len(text) < _MOST and "://" not in text and _PICTURE.fullmatch(text)
    )
    return like >= _SHARE * look.filled


def masks(look: Look) -> bool:
    """Whether the pictures are masks, by the column's name or by the folder that they are in."""
    folders = {str(text).rpartition("/")[0] for text in list(look.present)[:100]}
    return bool(_MASK.search(look.name)) or all(map(_MASK.search, folders))


def picture_names(look: Look) -> Finding | None:
    """Names of pictures that were not loaded, left out with what can be done; None for other columns."""
    if not names_pictures(look):
        return None
    first = shown(next(iter(look.present)))
    if masks(look):
        why = (
            f"names pictures that are masks ({first}): no feature of this version answers a picture. A number"
            " or a class that is worked out of each mask, such as a count, can be a target"
        )
        return Finding(look.name, None, why, role="identifier")
    why = (
        f"names pictures ({first}) that are not beside the table. Say where they are, to learn from them: "
        f" load: {{{key(look.name)}: {{root: FOLDER}}}}  in `source`"
    )
    return Finding(look.name, None, why, role="identifier", loud=True)
