"""Rows that are steps of series: sorted and stored once, and cut into samples when they are read."""
