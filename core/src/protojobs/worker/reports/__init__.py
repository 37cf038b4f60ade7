"""What a worker tells: events, log lines, health, counts for charts."""
