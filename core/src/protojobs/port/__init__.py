"""What core asks of a store, and the values that cross: all that a driver imports besides errors, clock, entropy, stopping."""
