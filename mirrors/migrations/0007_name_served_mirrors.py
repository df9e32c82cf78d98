"""Mirrors made before there was /v2/ get the names they are served under: upstream's, or mirrors/NAME."""

from django.db import migrations

UPSTREAM = {
    ("trivy-db", "trivy-db"): "aquasecurity/trivy-db",
    ("trivy-java-db", "trivy-java-db"): "aquasecurity/trivy-java-db",
    ("trivy-checks", "trivy-checks"): "aquasecurity/trivy-checks",
    ("trivy-checks-1", "trivy-checks"): "aquasecurity/trivy-checks",
}
TAGS = {"trivy-db": "2", "trivy-java-db": "1", "trivy-checks": "2"}
SERVED = (*TAGS, "oci")


def name_them(apps, schema_editor):
    Mirror = apps.get_model("mirrors", "Mirror")
    Source = apps.get_model("mirrors", "Source")
    taken = set()
    for mirror in Mirror.objects.filter(kind__in=SERVED, served_repository="").order_by("position", "name"):
        first = Source.objects.filter(mirror=mirror).order_by("position").first()
        path = first.reference.partition("@")[0].rpartition("/")[2] if first else ""
        tag = path.partition(":")[2][:128] or TAGS.get(mirror.kind, "latest")
        repository = UPSTREAM.get((mirror.name, mirror.kind), "")
        if not repository or (repository, tag) in taken:
            repository = f"mirrors/{mirror.name}"
        taken.add((repository, tag))
        mirror.served_repository, mirror.served_tag = repository, tag
        mirror.save(update_fields=["served_repository", "served_tag"])


class Migration(migrations.Migration):
    dependencies = [("mirrors", "0006_add_served_names")]
    # Backwards the columns go, and the names with them.
    operations = [migrations.RunPython(name_them, migrations.RunPython.noop)]
