"""Tests of forgetting rows."""
