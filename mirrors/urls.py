"""Every URL of the application, grouped by page."""

from django.urls import path, re_path

from mirrors.views import (
    account,
    bundles,
    consumers,
    dashboard,
    distribution,
    files,
    health,
    history,
    mirror,
    people,
    readers,
    reading,
    record,
    settings,
    store,
    use_it,
    vex,
)

app_name = "mirrors"

urlpatterns = [
    path("", dashboard.dashboard, name="dashboard"),
    # Database
    path("databases/<slug:name>/", mirror.mirror_detail, name="mirror-detail"),
    path("databases/<slug:name>/sync", mirror.mirror_sync, name="mirror-sync"),
    path("databases/<slug:name>/release", mirror.mirror_release, name="mirror-release"),
    path("snapshots/<int:pk>/pin", mirror.snapshot_pin, name="snapshot-pin"),
    path("snapshots/<int:pk>/roll-back", mirror.snapshot_roll_back, name="snapshot-roll-back"),
    # History
    path("history/", history.history, name="history"),
    path("history.csv", history.history_csv, name="history-csv"),
    path("runs/<int:pk>/", history.run_detail, name="run-detail"),
    path("runs/<int:pk>/stop", history.run_stop, name="run-stop"),
    # Bundles
    path("bundles/", bundles.bundles, name="bundles"),
    path("bundles.csv", bundles.bundles_csv, name="bundles-csv"),
    path("bundles/create", bundles.bundle_create, name="bundle-create"),
    path("bundles/<slug:pk>/", bundles.bundle_detail, name="bundle-detail"),
    path("bundles/<slug:pk>/download", bundles.bundle_download, name="bundle-download"),
    path("bundles/<slug:pk>/delete", bundles.bundle_delete, name="bundle-delete"),
    # Use it
    path("use-it/", use_it.page, name="use-it"),
    path("use-it/ca.pem", use_it.certificate, name="use-it-ca"),
    path("use-it/<slug:audience>/", use_it.page, name="use-it-for"),
    # Consumers
    path("consumers/", consumers.consumers, name="consumers"),
    path("consumers.csv", consumers.consumers_csv, name="consumers-csv"),
    path("consumers/settings", consumers.consumers_settings, name="consumers-settings"),
    # Settings
    path("settings/", settings.mirrors, name="settings"),
    path("settings/mirrors/new", settings.mirror_create, name="mirror-create"),
    path("settings/mirrors/<slug:name>/", settings.mirror_edit, name="mirror-edit"),
    path("settings/mirrors/<slug:name>/enable", settings.mirror_enable, name="mirror-enable"),
    path("settings/mirrors/<slug:name>/delete", settings.mirror_delete, name="mirror-delete"),
    path("settings/mirrors/<slug:name>/test", settings.mirror_test, name="mirror-test"),
    path("settings/access/", readers.access, name="access"),
    path("settings/access/switch", readers.access_switch, name="access-switch"),
    path("settings/access/tokens/new", readers.token_create, name="token-create"),
    path("settings/access/tokens/<slug:name>/revoke", readers.token_revoke, name="token-revoke"),
    path("settings/people/", people.people, name="people"),
    path("settings/people/new", people.person_create, name="person-create"),
    path("settings/people/<int:pk>/", people.person_edit, name="person-edit"),
    path("settings/people/<int:pk>/delete", people.person_delete, name="person-delete"),
    path("settings/record/", record.record, name="record"),
    path("settings/record.csv", record.record_csv, name="record-csv"),
    path("settings/store/", store.store, name="store"),
    path("settings/store/scrub", store.store_scrub, name="store-scrub"),
    # Account
    path("login/", account.login, name="login"),
    path("logout/", account.logout, name="logout"),
    path("password/", account.password, name="password"),
    # For programs
    path("healthz", health.healthz, name="healthz"),
    # No repository can be called so: its paths go on with manifests, blobs, tags or referrers.
    path("v2/token", reading.token, name="token"),
    path("vex/<slug:name>/.well-known/vex-repository.json", vex.vex_manifest, name="vex-manifest"),
    path("vex/<slug:name>/<str:file>", vex.vex_archive, name="vex-archive"),
    # The registry; of a name that holds such words itself, the last ones count
    path("v2/", distribution.base, name="v2"),
    path("v2", distribution.base),
    path("v2/_catalog", distribution.catalog, name="v2-catalog"),
    re_path(r"^v2/(?P<name>(?s:.*))/manifests/(?P<reference>[^/]+)\Z", distribution.manifest, name="v2-manifest"),
    re_path(r"^v2/(?P<name>(?s:.*))/blobs/(?P<digest>[^/]+)\Z", distribution.blob, name="v2-blob"),
    re_path(r"^v2/(?P<name>(?s:.*))/tags/list\Z", distribution.tags, name="v2-tags"),
    re_path(r"^v2/(?P<name>(?s:.*))/referrers/(?P<digest>[^/]+)\Z", distribution.referrers, name="v2-referrers"),
    re_path(r"^v2/", distribution.nothing),
    path("files/", files.files, name="files"),
    path("files/<slug:name>/", files.mirror_files, name="mirror-files"),
    path("files/<slug:name>/latest", files.latest_release, name="latest-release"),
    path("files/<slug:name>/<str:version>/", files.release_files, name="release-files"),
    path("files/<slug:name>/<str:version>/<str:file>", files.release_file, name="release-file"),
]
