"""The limits: one module for each kind of store, each with `open_store(url, synchronous)`."""
