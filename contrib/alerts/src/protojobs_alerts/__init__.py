"""Alerts on failed jobs, backed-up queues and missing workers, by webhook and mail: grouped, and seldom.

    $ export PROTOJOBS_ALERTS_WEBHOOK=https://chat.example.com/hooks/jobs
    $ protojobs alerts --test
    $ protojobs alerts

One process watches the store for the whole fleet. Workers have nothing to do with it: they neither wait for a webhook,
nor does each of a hundred send the same alert.
"""

from __future__ import annotations

from protojobs_alerts.findings import Finding
from protojobs_alerts.messages import Message, Notice
from protojobs_alerts.sending import Channel, SendFailed
from protojobs_alerts.settings import AlertSettings
from protojobs_alerts.watching import Watcher, channels_of

__all__ = ["AlertSettings", "Channel", "Finding", "Message", "Notice", "SendFailed", "Watcher", "channels_of"]
