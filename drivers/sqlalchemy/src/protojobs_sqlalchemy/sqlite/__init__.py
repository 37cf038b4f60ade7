"""SQLite: one writer at a time; claim and settle in one step."""
