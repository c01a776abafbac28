"""From declared sources to an immutable dataset version: every row is in it, or accounted for."""
