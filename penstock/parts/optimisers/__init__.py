"""The shelf of optimisers, how weights move by their gradients: one small file a type.

Nobody imports a shelf; a recipe names it.
"""
