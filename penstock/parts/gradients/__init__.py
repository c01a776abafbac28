"""The shelf of exchanges, how gradients are summed over ranks: one small file a type.

Nobody imports a shelf; a recipe names it.
"""
