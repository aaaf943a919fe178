"""Pages, and the WebSockets of the kind that the handler runs."""

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.contrib.auth.models import Permission
from django.http import HttpResponse, JsonResponse
from django.urls import path, reverse
from django.utils.translation import get_language

from uwasp import Group

if settings.UWASP.get("handler_class") == "asyncio":
    from django_site.coroutines import websocket_urlpatterns
else:
    from django_site.servers import websocket_urlpatterns


def page(request):
    return JsonResponse({"room": reverse("rooms:room", kwargs={"name": "blue"}), "language": get_language()})


def enter(request, name):
    """Log somebody in, whom the right to see logs is given with a name in capitals."""
    user, _ = get_user_model().objects.get_or_create(username=name)
    if name.isupper():
        user.user_permissions.add(Permission.objects.get(codename="view_session"))
    login(request, user)
    request.session["color"] = "blue"
    return HttpResponse("in")


def notify(request):
    Group("unusual").notify("count")
    return HttpResponse("told")


urlpatterns = [path("", page), path("enter/<str:name>/", enter), path("notify/", notify)]
urlpatterns += websocket_urlpatterns
