"""The record of logins, exports and changes only grows; the database itself sees to it."""

import pytest
from django.db import DatabaseError, connection, transaction

from mirrors import record
from mirrors.models import AuditEntry
from tests.conftest import append_only

pytestmark = pytest.mark.django_db


@pytest.fixture
def guarded():
    with transaction.atomic():
        append_only(apply=True)
        record.write("ada", "mirror changed", "trivy-db", "schedule: 6h")
        yield
        append_only(apply=False)


@pytest.mark.parametrize("verb", ["update", "delete", "raw delete"])
def test_it_refuses_to_change_or_delete_an_entry(guarded, verb):
    def attack():
        if verb == "update":
            AuditEntry.objects.update(actor="nobody")
        elif verb == "delete":
            AuditEntry.objects.all().delete()
        else:
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM mirrors_auditentry")

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        attack()
    assert AuditEntry.objects.get().actor == "ada"
