"""Runtimes: what runs a bundle's program."""
