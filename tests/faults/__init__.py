"""Real faults on real stores, and the judge of what came of them."""
