"""Layers that several shelves share: tokens out of columns, blocks, attention, heads.

They know no feature and no task.
"""
