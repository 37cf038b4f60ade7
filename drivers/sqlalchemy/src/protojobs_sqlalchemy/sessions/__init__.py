"""Push and complete inside the caller's transaction."""
