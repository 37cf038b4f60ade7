"""No models: the tables are made by protojobs-sqlalchemy. Django tells of `migrate` only apps that have this module."""
