"""What core asks of a store, and the values that cross.

A driver imports this package and `errors`, `clock`, `entropy` and `stopping`; nothing else of core.
"""
