"""From a feed and an order to batches, made ahead of need; the whole state of a loader is a position."""
