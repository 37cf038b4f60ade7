"""The steps from one version of the tables to the next, for Alembic. `migrating.py` runs them.

An additive step leaves all that was there usable for the releases before it, which go on working while a deployment
rolls, start again, and come back by a rollback. It makes tables, indexes and columns, and each new column may be NULL
or has a default of the server's (in `jobs_archive` too); it removes only what no release reads. Every step from 0005 on
says `readable_from`: the oldest version whose releases can work on the tables after it. An additive step repeats what
the step before it says; any other says its own revision, and then older releases refuse the tables.

Every step says in `step_back_loses` what its `downgrade` throws away; the text is empty where that is nothing, and only
then `protojobs migrate --to` goes back over it. CONTRIBUTING.md has the rules for a new step.
"""

HEAD = "0007"
"""The version that this release works on."""

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
"""Every version so far, oldest first."""
