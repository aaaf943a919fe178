"""The WebSockets in async def, whatever the handler."""

from django_site.coroutines import websocket_urlpatterns as urlpatterns

__all__ = ["urlpatterns"]
