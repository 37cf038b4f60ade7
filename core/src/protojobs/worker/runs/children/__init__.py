"""Child processes: one job at a time in each, spoken to through a pipe."""
