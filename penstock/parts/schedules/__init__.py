"""The shelf of schedules, how the learning rate moves over training: one small file a type.

Nobody imports a shelf; a recipe names it.
"""
