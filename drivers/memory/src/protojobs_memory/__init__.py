"""The store that lives in this process: the simplest driver, and the model that the others are compared with."""

from protojobs_memory.driver import MemoryDriver

__all__ = ["MemoryDriver"]
