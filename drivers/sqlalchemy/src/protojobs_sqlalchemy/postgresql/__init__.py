"""PostgreSQL: one statement settles and claims; LISTEN and NOTIFY; finished jobs by days."""
