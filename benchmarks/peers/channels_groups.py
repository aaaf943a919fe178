"""Django Channels with channels_redis, as an ASGI application: groups over several processes."""

import os

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter
from django.conf import settings

NAME = 8  # as in members.py
# It waits for messages for five seconds at a time, in which newer versions of its client give up.
HOST = {"address": os.environ["REDIS_URL"], "socket_timeout": None}
settings.configure(
    CHANNEL_LAYERS={"default": {"BACKEND": os.environ["CHANNEL_LAYER"], "CONFIG": {"hosts": [HOST]}}},
)
django.setup()


class Member(AsyncWebsocketConsumer):
    async def connect(self):
        self.aim = None
        await self.accept()
        await self.send(text_data=str(os.getpid()))

    async def receive(self, text_data=None, bytes_data=None):
        if text_data.startswith("join "):
            for group in text_data[5:].split(","):
                await self.channel_layer.group_add(group, self.channel_name)
            await self.send(text_data="ok")
        elif text_data.startswith("aim "):
            self.aim = text_data[4:]
            await self.send(text_data="ok")
        else:
            group = text_data[:NAME] if self.aim == "*" else self.aim
            await get_channel_layer().group_send(group, {"type": "said", "text": text_data})

    async def said(self, event):
        await self.send(text_data=event["text"])


application = ProtocolTypeRouter({"websocket": Member.as_asgi()})
