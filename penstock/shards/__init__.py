"""Encoded rows on disk or in a bucket, and how they are read: by slot, without a copy, through a cache."""
