"""What a mutant is, and the stores on which there are some."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Store:
    """A store, the package of its driver, and the name of the driver's class."""

    package: str
    source: Path
    driver: str


MEMORY = Store("protojobs_memory", ROOT / "drivers/memory/src/protojobs_memory", "MemoryDriver")
SQL = Store("protojobs_sqlalchemy", ROOT / "drivers/sqlalchemy/src/protojobs_sqlalchemy", "SQLAlchemyDriver")
REDIS = Store("protojobs_redis", ROOT / "drivers/redis/src/protojobs_redis", "RedisDriver")
STORES = {"memory": MEMORY, "sqlite": SQL, "postgresql": SQL, "valkey": REDIS}


@dataclass(frozen=True)
class Mutant:
    """One fault: what is wrong, and the changes `(file, what stands there, what comes in its place)`."""

    name: str
    first: tuple[str, ...]
    changes: tuple[tuple[str, str, str], ...]
    store: str = "memory"


def mutant(name: str, first: str, *changes: tuple[str, str, str], store: str = "memory") -> Mutant:
    return Mutant(name, tuple(first.split()), changes, store)
