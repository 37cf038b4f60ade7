"""From a URL to a step on a connection, and from the database's errors to ours."""
