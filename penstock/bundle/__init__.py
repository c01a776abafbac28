"""The packing room: a finished run → a bundle that answers rows without the training dependencies."""
