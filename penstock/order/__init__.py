"""Who comes when: orders of rows, as pure functions of a seed, an epoch and a position."""
