"""Every URL of the application, grouped by page."""

app_name = "mirrors"

urlpatterns: list = []
