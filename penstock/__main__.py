"""`penstock`, and `python -m penstock`: the command line's first moment.

Ctrl-C is handled before the rest is imported, and until the process has ended: so none is answered by a
traceback.
"""

from __future__ import annotations

import os
import sys

try:
    from penstock.core.interrupts import EXIT_CODE, interrupts
except KeyboardInterrupt:  # it came before the handlers that this very import brings
    os.write(2, b"penstock: Stopped. Nothing was started. Run the same command again.\n")
    os._exit(130)


def main() -> int:
    """Run the command that `sys.argv` says; returns its exit code."""
    interrupts.keep()
    try:
        from penstock.cli import main as command

        code = command()
    except KeyboardInterrupt:  # it came while the command line was still being imported
        sys.stderr.write(f"penstock: {interrupts.sentence}\n")
        code = EXIT_CODE
    interrupts.over(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
