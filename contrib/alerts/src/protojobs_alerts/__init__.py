"""Alerts on failed jobs and backed-up queues, by webhook and mail."""
