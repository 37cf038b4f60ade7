"""The port in SQL for every database: store, claim, settle, administer, schedule."""
