"""Tests that name a kind of failure: what must not run, leak, hang, be lost or change its meaning.

`docs/promises.md` says which file watches which promise.
"""
