"""The pytest plugin: one fixture, `job_queue`. Loaded by pytest wherever protojobs is installed, so it loads little."""
