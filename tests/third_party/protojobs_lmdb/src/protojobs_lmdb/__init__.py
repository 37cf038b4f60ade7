"""An LMDB file as a store of protojobs: one file, no server, several processes of one machine."""

from protojobs_lmdb.driver import LmdbDriver

__all__ = ["LmdbDriver"]
