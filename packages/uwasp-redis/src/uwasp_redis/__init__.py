"""uWASP's bus between machines: carries groups' messages by the channels of a Redis or Valkey."""

from __future__ import annotations

from uwasp_redis.transport import RedisTransport

__all__ = ["RedisTransport"]

__version__ = "0.1.0"
