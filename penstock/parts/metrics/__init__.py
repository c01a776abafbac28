"""The shelf of metrics: one small file a metric. Nobody imports a shelf; a recipe, a report or
`penstock.metrics.known` names it.
"""
