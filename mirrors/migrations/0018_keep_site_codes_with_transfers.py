"""Transfers made before keep the code that their site has now: it is the one their bundles have, as far as is known."""

from django.db import migrations
from django.db.models import OuterRef, Subquery


def keep_codes(apps, schema_editor):
    Site, Transfer = apps.get_model("mirrors", "Site"), apps.get_model("mirrors", "Transfer")
    code = Site.objects.filter(pk=OuterRef("site_id")).values("code")[:1]
    Transfer.objects.filter(site_code="").update(site_code=Subquery(code))


class Migration(migrations.Migration):
    dependencies = [("mirrors", "0017_add_transfer_site_code")]
    # Backwards the column goes, and the codes with it.
    operations = [migrations.RunPython(keep_codes, migrations.RunPython.noop)]
