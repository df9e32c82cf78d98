"""Which tables have rows at all. A page that shows many things asks first, and then only for what there is."""

from django.db import connection
from django.db.models import Model


def with_rows(*models: type[Model]) -> frozenset[type[Model]]:
    """Those of these models that have a row; one query for all of them.

    Written out, because Django takes longer to put such a query together than a database to answer it.
    """
    tables = (connection.ops.quote_name(model._meta.db_table) for model in models)
    asked = ", ".join(f"EXISTS (SELECT 1 FROM {table})" for table in tables)  # noqa: S608 - names of our own tables
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {asked}")
        found = cursor.fetchone()
    return frozenset(model for model, is_there in zip(models, found, strict=True) if is_there)
