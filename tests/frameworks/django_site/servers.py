"""WebSockets of each kind, for the handlers that run plain functions."""

import json
import os
import time
from functools import partial

from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required, permission_required
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.http import Http404
from django.urls import include, path, re_path, reverse
from django.utils import timezone, translation

from uwasp import Allowed, Group, Server, conversation
from uwasp_django import websocket


def tell(ws, **more):
    ws.send_json({"user": str(ws.user), **more})


class Echo(Server):
    protocols = ("chat.v2", "chat.v1")

    def on_message(self, message):
        self.ws.send(message)


class Narrow(Echo):
    allowed_origins = ("https://trusted.example",)


@websocket
def chat(ws, name, number=0):
    for message in ws:
        ws.send(f"{name} {number}: {message}")


@websocket
def positional(ws, first, second):
    ws.send(f"{first} {second}")


@websocket
def who(ws):
    request = ws.environ["uwasp_django.request"]
    session = getattr(request, "session", {})
    tell(ws, kind=type(ws.user).__name__, color=session.get("color"), seen_by=request.seen_by)
    ws.receive()


class Room(Server):
    """Says where it is, in which language, and lets language be chosen."""

    def __init__(self, ws, prefix="in"):
        super().__init__(ws)
        self.prefix = prefix

    def on_open(self):
        self.on_message("?")

    def on_message(self, message):
        if message != "?":
            translation.activate(message)
        tell(
            self.ws,
            name=self.ws.params.get("name"),
            prefix=self.prefix,
            url=reverse("rooms:room", kwargs={"name": "x"}),
            language=translation.get_language(),
            zone=timezone.get_current_timezone_name(),
        )


class Guarded(Server):
    @classmethod
    def authorize(cls, environ):
        _, params = environ["wsgiorg.routing_args"]
        user = environ["uwasp_django.request"].user
        if params["name"] == "nowhere":
            raise Http404("no such room")
        if not user.is_authenticated:
            raise PermissionDenied("not you")
        return f"{user} in {params['name']}"

    def on_open(self):
        tell(self.ws)


class Made(Server):
    def __init__(self, ws):
        super().__init__(ws)
        raise PermissionDenied("not made for you")


def forbids(view):
    def check(request, name):
        if name == "nowhere":
            raise Http404("nothing is here")
        raise PermissionDenied("not here")

    return check


# What databases see


def number_of_users():
    return get_user_model().objects.count()


class Counting(Server):
    """Counts users, or does what a message says, and then fails."""

    def on_open(self):
        self.ws.send(str(number_of_users()))

    def on_message(self, message):
        if message == "sleep":
            with connection.cursor() as cursor:
                cursor.execute("select pg_sleep(0.5)")
        elif message.startswith("make"):
            get_user_model().objects.create(username=message.split()[1])
            if message.endswith("fail"):
                raise ValueError("after it was made")
        self.ws.send(str(number_of_users()))

    def on_close(self):
        number_of_users()
        os.write(1, b"counted at the close\n")


class Apart(Counting):
    @transaction.non_atomic_requests
    def on_message(self, message):
        super().on_message(message)


class Unusual(Server):
    """Uses the database in the events that are not each server's."""

    group = Group("unusual")

    def on_open(self):
        self.group.add(self.ws)
        self.ws.send("here")

    def on_notify(self, group, data):
        self.ws.send(str(number_of_users()))


@websocket
def counting(ws):
    ws.send(str(number_of_users()))
    while True:
        try:
            message = ws.receive(timeout=2) if ws.path.endswith("patient/") else ws.receive()
        except TimeoutError as error:
            ws.send(str(error))
            continue
        if message == "raw":
            with transaction.atomic():
                number = number_of_users()
                ws.receive()
                with connection.cursor() as cursor:
                    cursor.execute("select pg_backend_pid()")
            ws.send(str(number))
        else:
            ws.send(str(number_of_users()))


def asked_again(environ):
    number_of_users()
    os.write(1, b"was asked\n")
    return Allowed("somebody", time.time() + 0.2, again=True)


@conversation(authorize=asked_again)
def again(ws):
    for message in ws:
        ws.send(message)


# Groups


@websocket
def listening(ws):
    Group("users").add(ws)
    ws.send("listening")
    ws.receive()


@receiver(post_save, sender=get_user_model())
def tell_of(instance, created, **rest):
    if created:
        transaction.on_commit(lambda: Group("users").send(json.dumps({"made": instance.username})))


rooms = [
    path("<slug:name>/", websocket(Room), name="room"),
    path("<slug:name>/made/", websocket(partial(Room, prefix="made"))),
    path("<slug:name>/guarded/", websocket(Guarded)),
]
websocket_urlpatterns = [
    path("echo/", websocket(Echo)),
    path("narrow/", websocket(Narrow)),
    path("chat/<str:name>/<int:number>/", chat),
    path("chat/<str:name>/", chat, {"number": 7}),
    re_path(r"^positional/(\w+)-(\w+)/$", positional),
    re_path(r"^named/(?P<name>[a-z]{3})/$", chat),
    path("rooms/", include((rooms, "rooms"))),
    path("who/", who),
    path("private/", login_required(who)),
    path("other-login/", login_required(who, login_url="/elsewhere/")),
    path("logs/", permission_required("sessions.view_session", raise_exception=True)(who)),
    path("logs-or-login/", permission_required("sessions.view_session")(who)),
    path("forbidden/<str:name>/", forbids(who)),
    path("never-made/", websocket(Made)),
    path("counting/", websocket(Counting)),
    path("counting/apart/", websocket(Apart)),
    path("counting/function/", counting),
    path("counting/function/patient/", counting),
    path("unusual/", websocket(Unusual)),
    path("again/", websocket(again)),
    path("listening/", listening),
]
