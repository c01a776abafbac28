"""The laws, one file a family.

Each file has `LAWS` and `check(part)`, which judges one declared part by all of them and raises an
AssertionError that names the law and the difference. Without pytest; with it, parametrise over `LAWS`.
"""
