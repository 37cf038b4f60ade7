"""protojobs in a Flask application: its configuration, an application context around each job, `flask protojobs`."""

from __future__ import annotations

from protojobs_flask.contexts import AppContexts
from protojobs_flask.extension import ProtoJobs

__all__ = ["AppContexts", "ProtoJobs"]
