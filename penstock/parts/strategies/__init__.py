"""The shelf of strategies, how several processes train one model: one small file a type.

Nobody imports a shelf; a recipe names it.
"""
