"""For authors of parts: the laws that every part of a family must keep.

Importable without pytest; see `penstock.testing.laws`.
"""
