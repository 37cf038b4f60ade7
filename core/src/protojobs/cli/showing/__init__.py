"""What commands print: tables, JSON, ages, progress, log lines."""
