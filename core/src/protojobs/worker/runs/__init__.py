"""Run one claimed job, in a thread, on an event loop or in a child process, and say how it ended."""
