"""Connections to the server: from a URL to the reply of a script, and from the server's errors to ours."""
