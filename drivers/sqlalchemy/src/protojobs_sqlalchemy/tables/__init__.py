"""The tables, their columns, and records as rows."""
