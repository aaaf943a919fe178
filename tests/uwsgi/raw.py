"""A WebSocket client that does only what it is told: that of the tests of behaviour."""

from uwasp_pytest.behaviour.raw import RawClient, frame, request

__all__ = ["RawClient", "frame", "request"]
