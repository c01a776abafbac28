"""Answers over HTTP: plain JSON, and the Open Inference Protocol, version 2.

The room cannot be entered without its packages, so their absence is told at the door, in a sentence.
"""

from penstock.core.optional import require

for _package in ("fastapi", "uvicorn", "prometheus_client"):
    require(_package, extra="serve", why="answering over HTTP")
