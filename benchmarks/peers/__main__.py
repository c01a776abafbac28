"""`python -m benchmarks.peers [GROUP …]` makes the peers' environments."""

import sys

from benchmarks.peers import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
