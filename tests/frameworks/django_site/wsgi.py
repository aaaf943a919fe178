"""The project's application. What is to be done before Django is imported is done first."""

import os

if os.environ.get("SITE_PATCHES"):
    from gevent import monkey

    monkey.patch_all()

from django.core.wsgi import get_wsgi_application

from uwasp_django import WebSocketApplication

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_site.settings")
application = WebSocketApplication(get_wsgi_application())
