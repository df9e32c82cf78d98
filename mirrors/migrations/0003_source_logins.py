from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("mirrors", "0002_append_only_record")]

    operations = [
        migrations.RenameField("source", "password_sealed", "secret_sealed"),
        migrations.AddField(
            "source",
            "login",
            models.CharField(
                choices=[
                    ("none", "no login"),
                    ("basic", "user name and password"),
                    ("token", "a token"),
                    ("docker", "a docker config file"),
                ],
                default="none",
                max_length=10,
            ),
        ),
    ]
