"""A small site for the tests: its database is that of SITE_DATABASE, a URL."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import django
import pymysql

pymysql.install_as_MySQLdb()

_url = urlsplit(os.environ["SITE_DATABASE"])
_ENGINES = {
    "sqlite": "django.db.backends.sqlite3",
    "postgresql": "django.db.backends.postgresql",
    "mysql": "django.db.backends.mysql",
    "mariadb": "django.db.backends.mysql",
}
if _url.scheme == "sqlite":
    _database = {"ENGINE": _ENGINES["sqlite"], "NAME": Path(_url.path[1:])}
    if name := os.environ.get("SITE_TEST_NAME"):
        _database["TEST"] = {"NAME": name}
else:
    _database = {
        "ENGINE": _ENGINES[_url.scheme.partition("+")[0]],
        "NAME": _url.path[1:],
        "USER": unquote(_url.username or ""),
        "PASSWORD": unquote(_url.password or ""),
        "HOST": _url.hostname,
        "PORT": _url.port or "",
        "CONN_MAX_AGE": 60,
    }
DATABASES = {"default": _database, "other": {"ENGINE": _ENGINES["sqlite"], "NAME": ":memory:"}}
SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shopsite.urls"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "protojobs_django",
    "shop",
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = os.environ.get("SITE_USE_TZ", "1") == "1"
TIME_ZONE = "America/New_York"
PROTOJOBS = {"database": "default", "retry_delay": 0.0, "poll_interval": 0.2}
if database := os.environ.get("SITE_JOBS_IN"):
    PROTOJOBS["database"] = database
if django.VERSION >= (6, 0):
    TASKS = {"default": {"BACKEND": "protojobs_django.backend.TaskBackend", "QUEUES": ["orders"]}}
