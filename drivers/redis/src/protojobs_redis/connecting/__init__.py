"""From a URL to a call on a connection, and from the server's errors to ours."""
