"""One module for each kind of fault run: `run(stage)` answers a Report."""
