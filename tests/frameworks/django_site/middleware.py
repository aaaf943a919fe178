"""Middleware of a project: a function, which sees requests and answers, and a class, which sees views too."""

from django.http import HttpResponse
from django.utils import timezone


def signed(get_response):
    def answer(request):
        if request.GET.get("stop") == "before":
            return HttpResponse("stopped", status=418)
        response = get_response(request)
        response["X-Answered"] = f"{response.status_code} {request.path}"
        if request.GET.get("stop") == "after":
            return HttpResponse("changed", status=409)
        return response

    return answer


class Views:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        with timezone.override(request.GET.get("zone", "UTC")):
            return self.get_response(request)

    def process_view(self, request, view, args, kwargs):
        request.seen_by = view.__name__
        if request.GET.get("stop") == "view":
            return HttpResponse("not this view", status=410)
        return None
