"""Rows are forgotten: a condition, the versions that hold its rows, new versions without them, and nothing
left of the old ones.

    conditions   which rows, in which datasets; what is said of the condition itself
    child        the version without them
    traces       where else in the store values of them stand
    plan         what would be done
    forgetting   it is done, and goes on where it was interrupted
    record       the report, signed
    retrain      models of the new versions
"""
