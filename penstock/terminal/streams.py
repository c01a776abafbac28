"""Standard output and standard error as a command may rely on them: no secret goes out, no text from
elsewhere commands the terminal, and none of their troubles ends a work.

Whoever listens may have gone (`| head`), the device may be full (`> /dev/full`), or there may be none
(`>&-`). Progress goes to standard error, and that nobody can read it must not stop a training: what cannot be
written there is dropped. A result that cannot be written to standard output is told, with an exit code that
says so, once the work is done.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

from penstock.core.redact import redacted, redacted_output
from penstock.core.visible import visible


class _Safe:
    """A text stream whose texts are redacted, and have no control characters.

    Args:
        stream: what is written to; None where the process was started without it.
        redact: what takes the credentials out of a text.
    """

    def __init__(self, stream: IO[str] | None, redact: Callable[[str], str]) -> None:
        self._stream, self._redact = stream, redact
        self.drawn = _Drawn(self)
        """The same for who draws on a terminal, and takes the control characters out of texts itself."""
        self.trouble: OSError | None = None
        """Why something could not be written."""

    def write(self, text: str) -> int:
        # Control characters are spelt out first; credentials are blanked in what is
        # really written.
        return self.draw(visible(text))

    def draw(self, text: str) -> int:
        if self._stream is None:
            # Remembered like a failed write, so that the exit code tells it.
            self._failed(OSError(errno.EBADF, "it is closed"))
        else:
            try:
                self._stream.write(self._redact(text))
            except OSError as error:
                self._failed(error)
        # As if it were written: a caller must not try again.
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except OSError as error:
                self._failed(error)

    def _failed(self, error: OSError) -> None:
        # The first trouble is the cause; later ones follow from it.
        self.trouble = self.trouble or error
        if self._stream is not None:
            _swallow_rest(self._stream)
            self._stream = None

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        # Something with `encoding` and `fileno` must answer, even where the stream is
        # gone.
        return getattr(self._stream if self._stream is not None else sys.__stderr__, name)


class _Drawn:
    """A stream that lets control characters through; all else is as in `stream`."""

    def __init__(self, stream: _Safe) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.draw(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _swallow_rest(stream: IO[str]) -> None:
    """Send what is still buffered nowhere: Python would try again when it ends, and
    complain.
    """
    # Python's own object stays: its descriptor leads to /dev/null from now on.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _occupy() -> None:
    """Put something at 0, 1 and 2 where they are closed: the next file that is opened would get the number,
    and a child's messages would be written into it.
    """
    for number, way in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, way)
                # `open` takes the lowest free number, which usually is the one wanted.
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
                # Children need it as well, and Python's descriptors are not inherited.
                os.set_inheritable(number, True)


class Streams:
    """Standard output and standard error, made safe while a command runs."""

    def __init__(self) -> None:
        self.out, self.err = (
            _Safe(sys.stdout, redacted_output),
            _Safe(sys.stderr, redacted),
        )

    def ended(self, code: int) -> int:
        """The exit code of a command that has done its work: 2 instead of 0 where its
        result could not be written, unless the reader has gone.
        """
        # What is buffered may only fail now.
        self.out.flush()
        trouble = self.out.trouble
        if trouble is None or code:
            return code
        why = (trouble.strerror or str(trouble)).lower()
        self.err.write(
            f"penstock: the result could not be written to standard output ({why}). What the command made is"
            " kept.\n"
        )
        return (
            0 if trouble.errno == errno.EPIPE else 2
        )  # whoever read has seen enough; or it is lost


@contextlib.contextmanager
def safe_streams() -> Iterator[Streams]:
    """Within the body, `sys.stdout` and `sys.stderr` never fail, and print no secrets."""
    # Before anything is opened by this command.
    _occupy()
    before = sys.stdout, sys.stderr
    streams = Streams()
    sys.stdout, sys.stderr = streams.out, streams.err
    try:
        yield streams
    finally:
        # While the safe streams are still in place, or a flush at exit would raise.
        streams.out.flush()
        streams.err.flush()
        sys.stdout, sys.stderr = before
