"""The engine room: the loop, what the world does to a model, optimisers, checkpoints, measurements."""
