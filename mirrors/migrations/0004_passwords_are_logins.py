"""Until now a source with a user name was one with a password."""

from django.db import migrations


def name_kind(apps, schema_editor):
    apps.get_model("mirrors", "Source").objects.exclude(username="").update(login="basic")


class Migration(migrations.Migration):
    dependencies = [("mirrors", "0003_source_logins")]

    # Going back, a token or docker config would be taken for a password without a user name, which is never sent.
    operations = [migrations.RunPython(name_kind, migrations.RunPython.noop)]
