"""The application's registration with Django."""

from django.apps import AppConfig


class MirrorsConfig(AppConfig):
    name = "mirrors"
    verbose_name = "Airgap"

    def ready(self) -> None:
        # Registers the system checks; they stay out of models and settings.
        from mirrors import checks  # noqa: F401
        from mirrors.models import instants

        instants.read_quickly()
