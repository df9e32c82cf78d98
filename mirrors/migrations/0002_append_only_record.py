"""The record of logins, exports and changes only grows: the database itself refuses updates and deletes."""

from django.db import migrations

SQLITE = [
    """CREATE TRIGGER mirrors_auditentry_{0} BEFORE {1} ON mirrors_auditentry
       BEGIN SELECT RAISE(ABORT, 'the record is append-only'); END""".format(name, verb)
    for name, verb in (("no_update", "UPDATE"), ("no_delete", "DELETE"))
]
SQLITE_BACK = ["DROP TRIGGER IF EXISTS mirrors_auditentry_no_update", "DROP TRIGGER IF EXISTS mirrors_auditentry_no_delete"]
POSTGRES = [
    """CREATE FUNCTION mirrors_record_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN RAISE EXCEPTION 'the record is append-only'; END $$""",
    """CREATE TRIGGER mirrors_auditentry_append_only BEFORE UPDATE OR DELETE ON mirrors_auditentry
       FOR EACH ROW EXECUTE FUNCTION mirrors_record_is_append_only()""",
]
POSTGRES_BACK = [
    "DROP TRIGGER IF EXISTS mirrors_auditentry_append_only ON mirrors_auditentry",
    "DROP FUNCTION IF EXISTS mirrors_record_is_append_only()",
]


def run(sqlite, postgres):
    def apply(apps, schema_editor):
        statements = {"sqlite": sqlite, "postgresql": postgres}.get(schema_editor.connection.vendor, [])
        for statement in statements:
            schema_editor.execute(statement)

    return apply


class Migration(migrations.Migration):
    dependencies = [("mirrors", "0001_initial")]
    operations = [migrations.RunPython(run(SQLITE, POSTGRES), run(SQLITE_BACK, POSTGRES_BACK))]
