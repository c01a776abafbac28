"""`python -m benchmarks` runs all; `python -m benchmarks serving` one."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
from importlib.metadata import version

import benchmarks
from benchmarks.harness import Cannot


def names_of() -> list[str]:
    """Every benchmark: a file that is neither the harness, nor shared by others (`_…`), nor the peers."""
    return sorted(
        m.name
        for m in pkgutil.iter_modules(benchmarks.__path__)
        if m.name != "harness" and not m.name.startswith("_") and not m.ispkg
    )


def main() -> int:
    known = names_of()
    options = argparse.ArgumentParser(prog="python -m benchmarks")
    options.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"one of {', '.join(known)}; all unless given",
    )
    names = options.parse_args().names or known
    strange = [n for n in names if n not in known]
    if strange:
        print(
            f"no benchmark is called {', '.join(strange)}; known: {', '.join(known)}",
            file=sys.stderr,
        )
        return 2
    versions = {
        package: version(package)
        for package in ("torch", "duckdb", "pyarrow", "onnxruntime", "numpy")
    }
    print(
        json.dumps(
            {
                "machine": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                **versions,
            }
        ),
        flush=True,
    )
    for name in names:
        try:
            importlib.import_module(f"benchmarks.{name}").bench()
        except Cannot as reason:
            print(json.dumps({"name": name, "skipped": str(reason)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
