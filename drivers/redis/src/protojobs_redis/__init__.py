"""Jobs in Redis or Valkey: one server, a Sentinel's master, or a cluster."""

from protojobs_redis.driver import RedisDriver

__all__ = ["RedisDriver"]
