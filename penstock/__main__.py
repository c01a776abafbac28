"""`penstock`, and `python -m penstock`: the command line's first moment.

Ctrl-C is handled before the rest is imported, and until the process has ended: so none is answered by a traceback.
"""

from __future__ import annotations

import sys

from penstock.core.interrupts import EXIT_CODE, interrupts


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
