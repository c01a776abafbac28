"""The ground: errors, identity, the store, optional packages, events.

It knows nothing of learning or of data.
"""
