"""Benchmarks: each against the field's own tools, side by side in one run. `python -m benchmarks [NAME …]`.

A benchmark is a file with a function `bench()`, which prints a JSON line a figure (`harness.say`). It may
raise `Cannot` with the reason where the machine lacks something.
"""
