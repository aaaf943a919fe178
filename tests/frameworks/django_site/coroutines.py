"""WebSockets in async def."""

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.db import connection
from django.urls import include, path
from django.utils import translation

from uwasp_asyncio import Server
from uwasp_django import websocket


class Room(Server):
    async def on_open(self):
        self.say()

    async def on_message(self, message):
        if message != "?":
            translation.activate(message)
        self.say()

    def say(self):
        self.ws.send_json(
            {"user": str(self.ws.user), "name": self.ws.params["name"], "language": translation.get_language()}
        )


@websocket
async def chat(ws, name, number=0):
    async for message in ws:
        ws.send(f"{name} {number}: {message}")


class Counting(Server):
    async def on_open(self):
        self.ws.send(str(await get_user_model().objects.acount()))

    async def on_message(self, message):
        if message == "sleep":
            await sleep_in_database()
        if message.startswith("make"):
            await get_user_model().objects.acreate(username=message.split()[1])
        if message == "fail":
            raise ValueError("an event failed")
        self.ws.send(str(await get_user_model().objects.acount()))


@sync_to_async
def sleep_in_database():
    with connection.cursor() as cursor:
        cursor.execute("select pg_sleep(0.5)")


@websocket
async def counting(ws):
    ws.send(str(await get_user_model().objects.acount()))
    async for _ in ws:
        ws.send(str(await get_user_model().objects.acount()))


rooms = [path("<slug:name>/", websocket(Room), name="room")]
websocket_urlpatterns = [
    path("rooms/", include((rooms, "rooms"))),
    path("chat/<str:name>/<int:number>/", chat),
    path("private/<str:name>/", login_required(chat)),
    path("counting/", websocket(Counting)),
    path("counting/function/", counting),
]
