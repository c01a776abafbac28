"""Columns of sound recordings, known by their first bytes."""

from __future__ import annotations

from penstock.inspect.raw_column import Finding, Look

_LOOKED_AT = 50
_KINDS = ("WAV", "FLAC", "Ogg", "MP3")


def recordings(look: Look) -> Finding | None:
    """The finding of a column of sound, left out with what can be done; None for other columns."""
    values = [v for v in look.raw.slice(0, _LOOKED_AT).to_pylist() if v]
    kinds = [kind for v in values if (kind := _kind(v))]
    if not kinds or len(kinds) < 0.9 * len(values):
        return None
    kind = max(_KINDS, key=kinds.count)
    why = (
        f"sound recordings ({kind}): no feature of this version reads sound. Turn each into a picture of its"
        " spectrogram, or into a row of numbers in a table, and start `init` on those"
    )
    return Finding(look.name, None, why, role="sound", loud=True)


def _kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "WAV"
    if data[:4] == b"fLaC":
        return "FLAC"
    if data[:4] == b"OggS":
        return "Ogg"
    # A tag, or the eleven bits that begin each frame.
    if data[:3] == b"ID3" or data[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):
        return "MP3"
    return None
