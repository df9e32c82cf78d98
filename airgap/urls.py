"""All URLs are the application's."""

from django.urls import include, path

urlpatterns = [path("", include("mirrors.urls"))]
