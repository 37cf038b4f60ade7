"""The Redis and Valkey driver: an empty distribution, until the issue that brings the driver itself."""
