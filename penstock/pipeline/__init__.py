"""The stages in order, what they will do before they do it, and the bulk answer to a file."""
