"""The shelves: imported by nobody, found by name."""
