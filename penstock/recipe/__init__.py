"""The dictionary: the one schema of all that may be declared, and how it is read."""
