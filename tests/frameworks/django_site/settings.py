"""A project with what Django's own project template has, and what the environment says.

All of it is JSON: SITE_DATABASE, the entry "default" of DATABASES; SITE_UWASP, that of UWASP; SITE_SETTINGS, others.
"""

import json
import os
from pathlib import Path

SECRET_KEY = "for tests"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
CSRF_TRUSTED_ORIGINS = ["https://trusted.example", "https://*.wild.example"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "uwasp_django"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_site.middleware.signed",
    "django_site.middleware.Views",
]
ROOT_URLCONF = "django_site.urls"
WSGI_APPLICATION = "django_site.wsgi.application"
LOGIN_URL = "/login/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": json.loads(os.environ.get("SITE_DATABASE", "null"))
    or {"ENGINE": "django.db.backends.sqlite3", "NAME": Path.cwd() / "site.sqlite3"}
}
UWASP = json.loads(os.environ.get("SITE_UWASP", "{}"))
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
globals().update(json.loads(os.environ.get("SITE_SETTINGS", "{}")))
