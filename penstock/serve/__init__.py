"""Answers over HTTP: plain JSON, and the Open Inference Protocol, version 2."""
