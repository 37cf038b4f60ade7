"""Find, count and list jobs; every query bounded."""
