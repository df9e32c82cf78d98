"""Settings: one file, from the environment only. docs/configuration.md has a heading for every variable."""

import hashlib
import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from airgap import environment

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = next(
    (
        line.removeprefix("## ").split()[0]
        for line in (BASE_DIR / "CHANGELOG.md").read_text().splitlines()
        if line.startswith("## ") and line[3:4].isdigit()
    ),
    "0",
)

# Where everything is kept, and which side of the gap this is.
AIRGAP_DATA_DIR = Path(environment.text("AIRGAP_DATA_DIR", str(BASE_DIR / "data"))).expanduser().resolve()
AIRGAP_SIDE = environment.choice("AIRGAP_SIDE", "connected", ("connected", "isolated", "both"))
AIRGAP_SCHEDULE = environment.choice("AIRGAP_SCHEDULE", "on", ("on", "off")) == "on"
AIRGAP_BIND = environment.bind("AIRGAP_BIND", "127.0.0.1:8000")
AIRGAP_ADMIN_PASSWORD = environment.text("AIRGAP_ADMIN_PASSWORD")
AIRGAP_BACKUP = environment.choice("AIRGAP_BACKUP", "on", ("on", "off")) == "on"
AIRGAP_BASE_URL = environment.text("AIRGAP_BASE_URL").rstrip("/")
if AIRGAP_BASE_URL and (
    urlsplit(AIRGAP_BASE_URL).scheme not in ("http", "https") or not urlsplit(AIRGAP_BASE_URL).netloc
):
    raise ImproperlyConfigured(f"AIRGAP_BASE_URL is {AIRGAP_BASE_URL!r}; it must start with http:// or https://.")

# Encryption by this program itself; else a proxy in front does it.
AIRGAP_TLS_CERT = environment.file("AIRGAP_TLS_CERT")
AIRGAP_TLS_KEY = environment.file("AIRGAP_TLS_KEY")
AIRGAP_TLS_CA = environment.file("AIRGAP_TLS_CA")
if bool(AIRGAP_TLS_CERT) != bool(AIRGAP_TLS_KEY):
    raise ImproperlyConfigured("Set AIRGAP_TLS_CERT and AIRGAP_TLS_KEY both, or neither.")

# Work and room.
AIRGAP_WORKERS = environment.number("AIRGAP_WORKERS", 4, least=1)
AIRGAP_PUSHES = environment.number("AIRGAP_PUSHES", 8, least=1)
AIRGAP_WEB_THREADS = environment.number("AIRGAP_WEB_THREADS", 48, least=4)
AIRGAP_PULL_THREADS = environment.number("AIRGAP_PULL_THREADS", 32, least=2)
AIRGAP_SEND_WITH = environment.choice("AIRGAP_SEND_WITH", "self", ("self", "nginx"))
AIRGAP_RESERVE_MB = environment.number("AIRGAP_RESERVE_MB", 1024)
AIRGAP_BUNDLE_DAYS = environment.number("AIRGAP_BUNDLE_DAYS", 30, least=1)
AIRGAP_COURIER_DAYS = environment.number("AIRGAP_COURIER_DAYS", 7, least=1)
AIRGAP_HISTORY_DAYS = environment.number("AIRGAP_HISTORY_DAYS", 1825, least=30)
AIRGAP_STEPS_DAYS = environment.number("AIRGAP_STEPS_DAYS", 90, least=1)

# Who pulls what is counted in memory and written down so many seconds later.
AIRGAP_CONSUMERS_WRITE_SECONDS = 5.0
# Where nginx logs the files it sent for us (deploy/nginx.conf).
AIRGAP_TAKEN_LOG = Path(environment.text("AIRGAP_TAKEN_LOG")) if environment.text("AIRGAP_TAKEN_LOG") else None

SECRET_KEY = environment.text("AIRGAP_SECRET_KEY") or environment.kept_secret(AIRGAP_DATA_DIR / "secret-key")
# Where an ssh-agent listens that holds the key bundles are signed with, if it is not kept here.
AIRGAP_SSH_AUTH_SOCK = environment.file("AIRGAP_SSH_AUTH_SOCK")
AIRGAP_CREDENTIALS_KEY_FILE = AIRGAP_DATA_DIR / "credentials-key"
DEBUG = False
# The Host header is checked against what this instance is called, where it was told; loopback always answers.
_BASE = urlsplit(AIRGAP_BASE_URL)
ALLOWED_HOSTS = [
    *(host.strip() for host in environment.text("AIRGAP_ALLOWED_HOSTS", "*").split(",")),
    "localhost",
    "127.0.0.1",
    "[::1]",
]
CSRF_TRUSTED_ORIGINS = [f"{_BASE.scheme}://{_BASE.netloc}"] if AIRGAP_BASE_URL else []
AIRGAP_BEHIND_PROXY = environment.text("AIRGAP_BEHIND_PROXY") == "yes"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if AIRGAP_BEHIND_PROXY else None

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "axes",
    "mirrors",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "mirrors.middleware.content_security_policy",
    "mirrors.middleware.no_nul",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "mirrors.middleware.LoginRequired",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "mirrors.middleware.first_password",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "airgap.urls"
WSGI_APPLICATION = "airgap.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {
            "loaders": [
                ("django.template.loaders.cached.Loader", ["django.template.loaders.filesystem.Loader"]),
            ],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "mirrors.context.instance",
            ],
            "builtins": ["django.templatetags.static"],
        },
    }
]

# The database: SQLite unless DATABASE_URL names another. IMMEDIATE transactions wait for a lock and do not fail on it.
DATABASES = {"default": environment.database("DATABASE_URL", AIRGAP_DATA_DIR / "airgap.sqlite3")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# People.
AUTH_USER_MODEL = "mirrors.User"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "mirrors:login"
LOGIN_REDIRECT_URL = "mirrors:dashboard"
LOGOUT_REDIRECT_URL = "mirrors:login"
AXES_FAILURE_LIMIT = environment.number("AIRGAP_LOGIN_ATTEMPTS", 10, least=1)
AXES_COOLOFF_TIME = 0.25
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
# Else everybody behind a proxy has its address: ten wrong passwords of anybody would lock an account for all.
AXES_CLIENT_IP_CALLABLE = "mirrors.views.access.address_of"
AXES_LOCKOUT_TEMPLATE = "registration/locked.html"
AXES_HTTP_RESPONSE_CODE = 429
AXES_VERBOSE = False
# Logins stand in our own record.
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False

# The browser.
SESSION_COOKIE_NAME = "airgap_session"
SESSION_COOKIE_SAMESITE = "Lax"
# Browsers reach it over TLS only: from this program itself, or from a proxy under a base URL with https.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = bool(AIRGAP_TLS_CERT) or _BASE.scheme == "https"
SECURE_HSTS_SECONDS = 86400 * environment.number("AIRGAP_HSTS_DAYS", 180) if SESSION_COOKIE_SECURE else 0
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
# No page takes a file, but for small ones that a view asks for by itself (mirrors/views/small_files.py). By default a
# stranger's would be written to /tmp, however large, before anybody looks at it.
FILE_UPLOAD_HANDLERS: list[str] = []
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = AIRGAP_DATA_DIR / "static"
STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

LANGUAGE_CODE = "en"
USE_I18N = False
TIME_ZONE = "UTC"
USE_TZ = True

# The broker: REDIS_URL, else a private server on a Unix socket under the data directory. Socket paths end at 107
# bytes, so a long data directory gets a folder named by its hash instead.
AIRGAP_BROKER_SOCKET: Path | None = None
if environment.text("REDIS_URL"):
    CELERY_BROKER_URL = environment.text("REDIS_URL")
else:
    AIRGAP_BROKER_SOCKET = AIRGAP_DATA_DIR / "broker" / "broker.sock"
    if len(os.fsencode(AIRGAP_BROKER_SOCKET)) > 100:
        _NAME = "airgap-" + hashlib.sha256(os.fsencode(AIRGAP_DATA_DIR)).hexdigest()[:16]
        AIRGAP_BROKER_SOCKET = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / _NAME / "broker.sock"
    CELERY_BROKER_URL = f"redis+socket://{AIRGAP_BROKER_SOCKET}"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_POOL = "threads"
# Beside syncs and pushes: an import, a look at the drop folder or into databases, a bundle being prepared, a store
# check, housekeeping, a log being read; and always one for the tick.
CELERY_WORKER_CONCURRENCY = AIRGAP_WORKERS + AIRGAP_PUSHES + 8
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "retry_on_timeout": True,
    # Nobody waits for a broker that is away (kombu would try for 6 s): the row is written, and the tick sends again.
    "max_retries": 1,
    "interval_start": 0.2,
}
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "tick": {"task": "mirrors.tick", "schedule": 5.0, "options": {"expires": 20}},
    "unprepared-bundles": {"task": "mirrors.unprepared_bundles", "schedule": 60.0, "options": {"expires": 50}},
    "taken-log": {"task": "mirrors.taken_log", "schedule": 30.0, "options": {"expires": 25}},
    "databases": {"task": "mirrors.look_into_databases", "schedule": 60.0, "options": {"expires": 50}},
    "housekeeping": {"task": "mirrors.housekeeping", "schedule": 600.0, "options": {"expires": 300}},
}

# Where VEX repositories may be read from; empty: anywhere but this instance's own data.
AIRGAP_VEX_DIRECTORIES = [path for path in environment.text("AIRGAP_VEX_DIRECTORIES").split(os.pathsep) if path]

# Bundles that come in: how long what was uploaded or verified waits, where they may be taken from, and who we are.
AIRGAP_STAGING_DAYS = environment.number("AIRGAP_STAGING_DAYS", 3, least=1)
AIRGAP_IMPORT_DIRECTORIES = [path for path in environment.text("AIRGAP_IMPORT_DIRECTORIES").split(os.pathsep) if path]
AIRGAP_DROP_DIRECTORY = environment.text("AIRGAP_DROP_DIRECTORY")
AIRGAP_SITE_CODE = environment.text("AIRGAP_SITE_CODE")

if AIRGAP_DROP_DIRECTORY:
    CELERY_BEAT_SCHEDULE["drop-folder"] = {"task": "mirrors.drop_folder", "schedule": 10.0, "options": {"expires": 9}}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": environment.text("AIRGAP_LOG_LEVEL", "WARNING").upper()},
    "loggers": {"mirrors": {"level": environment.text("AIRGAP_LOG_LEVEL", "INFO").upper()}},
}
