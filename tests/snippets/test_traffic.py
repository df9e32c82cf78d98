"""What a fleet transfers in a day."""

from mirrors.snippets import Artifact, traffic


def load_of(instance, label, **counts):
    counts = {"scanners": 10, "jobs": 0, "fillers": 1, **counts}
    return next(load for load in traffic(instance, **counts).loads if load.label == label)


def test_the_db_is_pulled_once_a_day_by_each_and_every_hour_once_nothing_newer_comes(make_instance):
    load = load_of(make_instance(), "Vulnerability DB")
    assert load.pulled == 10 * 110_000_000
    assert load.stale == 24 * 10 * 110_000_000
    assert load.burst == 10 * 110_000_000


def test_the_java_db_is_pulled_every_three_days_and_daily_once_nothing_newer_comes(make_instance):
    load = load_of(make_instance(), "Java DB")
    assert load.pulled == 10 * 900_000_000 // 3
    assert load.stale == 10 * 900_000_000


def test_checks_cost_nothing_while_they_stay_the_same(make_instance):
    assert load_of(make_instance(), "Checks bundle").pulled == 0


def test_jobs_without_a_cache_take_everything_each_time(make_instance):
    assert load_of(make_instance(), "Vulnerability DB", scanners=0, jobs=7).cacheless == 7 * 110_000_000


def test_filling_costs_by_the_hosts_that_fill(make_instance):
    assert load_of(make_instance(), "Vulnerability DB", scanners=1000, fillers=2).filled == 2 * 110_000_000


def test_the_total_adds_up_what_is_known(make_instance):
    instance = make_instance(artifacts=(Artifact("trivy-db", "Vulnerability DB", "aquasecurity/trivy-db", "2"),))
    found = traffic(instance, scanners=10, jobs=0, fillers=1)
    assert found.loads[0].pulled is None
    assert found.total.pulled == 10 * 180_000


def test_nothing_mirrored_is_nothing_to_reckon(make_instance):
    found = traffic(make_instance(artifacts=(), vex=()), scanners=10, jobs=0, fillers=1)
    assert found.loads == () and found.total.pulled is None
