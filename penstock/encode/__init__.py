"""From a dataset to a feed: features are fitted on the training split, and every row is encoded once."""
