"""The load-bearing walls: what each family of parts promises.

Shelves implement these; rooms rely on nothing else.
"""
