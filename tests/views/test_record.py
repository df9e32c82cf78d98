"""The record's page and its CSV."""

import csv
import io
from datetime import timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from mirrors import record

PAGE, CSV = "/settings/record/", "/settings/record.csv"


def rows(answer):
    return list(csv.reader(io.StringIO(b"".join(answer.streaming_content).decode())))


def test_it_is_for_administrators(client, viewer, operator, administrator):
    for path in (PAGE, CSV):
        client.logout()
        assert client.get(path).status_code == 302
        for person, status in ((viewer, 403), (operator, 403), (administrator, 200)):
            client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
            assert client.get(path).status_code == status
            assert client.post(path).status_code in (403, 405)


def test_it_shows_the_newest_first_and_hostile_text_as_text(as_administrator):
    record.write("ada", "login", "ada", "", "10.0.0.1")
    record.write("eve", "login failed", "<script>alert(1)</script>")
    text = as_administrator.get(PAGE).text
    assert text.index("eve") < text.index("10.0.0.1")
    assert "<script>alert" not in text and "&lt;script&gt;" in text


def test_it_is_filtered_by_links_in_the_address(as_administrator):
    now = timezone.now()
    record.write("ada", "login", "ada", at=now - timedelta(days=8))
    record.write("bob", "mirror changed", "trivy-db", "schedule: 1h → 2h")

    def who(**filters):
        return [entry.actor for entry in as_administrator.get(PAGE, filters).context["entries"]]

    assert who() == ["bob", "ada"]
    assert who(action="login") == ["ada"]
    assert who(q="TRIVY") == ["bob"]
    assert who(q="2h") == ["bob"]
    assert who(period="week") == ["bob"]
    assert who(q="trivy", action="login") == []
    assert "Nothing that fits" in as_administrator.get(PAGE, {"q": "nobody"}).text
    assert as_administrator.get(PAGE, {"q": "a%b", "period": "eon", "before": "9" * 30}).status_code == 200


def test_it_is_read_page_by_page_with_the_same_number_of_queries(as_administrator):
    for number in range(120):
        record.write(f"p{number}", "login")
    seen, link, counts = [], "", set()
    while True:
        with CaptureQueriesContext(connection) as queries:
            answer = as_administrator.get(PAGE + link)
        counts.add(len(queries))
        seen += [entry.actor for entry in answer.context["entries"]]
        link = answer.context["older"]
        if not link:
            break
    assert seen == [f"p{number}" for number in reversed(range(120))]
    assert len(counts) == 1


def test_the_csv_has_everything_that_fits_and_no_formulas(as_administrator):
    record.write("=cmd()", "login failed", "@SUM(A1)", "a, b\nc")
    record.write("ada", "login", "ada", "", "10.0.0.1")
    answer = as_administrator.get(CSV)
    assert answer["Content-Type"].startswith("text/csv") and "attachment" in answer["Content-Disposition"]
    head, first, second = rows(answer)
    assert head == ["at", "who", "what", "subject", "detail", "address"]
    assert first[1:] == ["ada", "login", "ada", "", "10.0.0.1"] and first[0].endswith("Z")
    assert second[1:5] == ["'=cmd()", "login failed", "'@SUM(A1)", "a, b\nc"]
    assert len(rows(as_administrator.get(CSV, {"action": "login"}))) == 2
