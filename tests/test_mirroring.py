"""Adding, changing and removing mirrors, on rows alone."""

from datetime import timedelta

import pytest

from mirrors import content, logins, mirroring, runs
from mirrors import mirror_rules as rules
from mirrors.logins import Login
from mirrors.mirror_rules import RuleBroken, SourceSpec
from mirrors.mirroring import (
    ChangedMeanwhile,
    MirroringError,
    Settings,
    StillInBundles,
    UnknownMirror,
    add_mirror,
    edit_mirror,
    fingerprint,
    remove_mirror,
    set_enabled,
)
from mirrors.models import AuditEntry, Bundle, BundleSnapshot, Mirror, Snapshot, Source, SyncRun
from mirrors.trivy.catalogue import KINDS
from tests.fakes.tls import Authority

DIGEST = "sha256:" + "ab" * 32


def sources(*references, **fields):
    return [SourceSpec(reference, **fields) for reference in references]


@pytest.fixture
def mirror(data_dir, db, now) -> Mirror:
    wish = Settings(kind="trivy-db", sources=sources("one.example/trivy-db:2", "two.example/trivy-db:2"))
    return add_mirror("db", wish, by="ada", now=now)


def edit(mirror, now, **changes):
    return edit_mirror(mirror.name, Settings(**changes), by="ada", now=now)


def references(mirror):
    return list(mirror.sources.order_by("position").values_list("reference", flat=True))


def snapshot_of(mirror, now) -> Snapshot:
    return Snapshot.objects.create(
        mirror=mirror, identity=DIGEST, manifest_digest=DIGEST, source_reference="x", size_bytes=5,
        fetched_at=now, confirmed_at=now,
    )  # fmt: skip


# Adding


def test_it_adds_a_mirror_that_is_due_at_once(mirror, now):
    assert mirror.next_sync_at == now
    assert references(mirror) == ["one.example/trivy-db:2", "two.example/trivy-db:2"]
    assert mirror.label == "db" and mirror.schedule == "" and mirror.schedule_text == "1h"
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.subject) == ("ada", "mirror added", "db")


def test_it_never_makes_a_manual_mirror_due(data_dir, db, now):
    wish = Settings(kind="trivy-db", sources=sources("one.example/trivy-db:2"), schedule="manual")
    assert add_mirror("db", wish, by="ada", now=now).next_sync_at is None


def test_it_gives_a_source_without_a_tag_the_kinds_own(data_dir, db, now):
    for kind, tag in (("trivy-db", "2"), ("trivy-java-db", "1"), ("trivy-checks", "2")):
        added = add_mirror(kind, Settings(kind=kind, sources=sources("r.example/x")), by="", now=now)
        assert references(added) == [f"r.example/x:{tag}"]


@pytest.mark.parametrize(
    ("kind", "reference", "said"),
    [
        ("oci", "r.example/x", "has no tag"),
        ("trivy-db", "https://r.example/x:2", "scheme"),
        ("trivy-db", "trivy-db:2", "names no registry"),
        ("trivy-db", "r.example/x@sha256:abc", "is not a digest"),
        ("trivy-db", "", "not a reference"),
        ("vex", "ghcr.io/aquasecurity/vexhub", "https://"),
        ("vex", "https://u:p@r.example/vex", "user name or password"),
        ("vex", "https://r.example/v.tar.gz//x?token=geheim", "token in its query"),
        ("vex", "https://r.example/v.tar.xz//x", "only tar.gz and zip"),
    ],
)
def test_it_refuses_a_source_that_is_not_written_as_its_kind_wants(data_dir, db, now, kind, reference, said):
    with pytest.raises(RuleBroken) as refused:
        add_mirror("m", Settings(kind=kind, sources=sources(reference)), by="ada", now=now)
    assert refused.value.setting == "sources"
    assert said in str(refused.value)
    assert not Mirror.objects.exists()


@pytest.mark.parametrize(
    "reference",
    ["https://r.example/vex", "https://github.com/aquasecurity/vexhub", "https://r.example/v.tar.gz//vexhub-main",
     "http://127.0.0.1:5005/a.zip//x"],
)  # fmt: skip
def test_it_takes_every_form_of_a_vex_source(data_dir, db, now, reference):
    added = add_mirror("v", Settings(kind="vex", sources=sources(reference)), by="ada", now=now)
    assert references(added) == [reference]


@pytest.mark.parametrize("name", ["", "Trivy", "a b", "a/b", "-a", "a--b", "new", "x" * 81, "ä", "a.b", "a\n"])
def test_it_refuses_a_name_that_is_no_repository_name(name, data_dir, db, now):
    if name == "a\n":
        name = "a\nb"
    with pytest.raises(RuleBroken) as refused:
        add_mirror(name, Settings(kind="trivy-db", sources=sources("r.example/x")), by="ada", now=now)
    assert refused.value.setting == "name"


def test_a_source_fits_its_column_with_the_tag_it_is_given():
    bare = ".".join(["a" * 61] * 4) + "/" + "b" * 251
    assert len(bare) == 499
    with pytest.raises(RuleBroken, match="longer than 500"):
        rules.checked_reference(bare, KINDS["trivy-db"])


def test_it_refuses_a_name_that_is_taken(mirror, now):
    with pytest.raises(MirroringError, match="already a mirror called db"):
        add_mirror("db", Settings(kind="oci", sources=sources("r.example/x:1")), by="ada", now=now)
    assert references(mirror) == ["one.example/trivy-db:2", "two.example/trivy-db:2"]


def test_it_refuses_an_unknown_kind_no_source_and_a_source_named_twice(data_dir, db, now):
    for wish, said in (
        (Settings(kind="npm", sources=sources("r.example/x:1")), "no kind of asset"),
        (Settings(sources=sources("r.example/x:1")), "of which kind"),
        (Settings(kind="oci"), "at least one source"),
        (Settings(kind="oci", sources=[]), "at least one source"),
        (Settings(kind="trivy-db", sources=sources("r.example/x", "r.example/x:2")), "named twice"),
        (Settings(kind="oci", sources=sources(*(f"r.example/x:{n}" for n in range(21)))), "At most 20"),
    ):
        with pytest.raises(RuleBroken, match=said):
            add_mirror("m", wish, by="ada", now=now)


def test_an_isolated_instance_adds_no_mirror(data_dir, db, now, settings):
    settings.AIRGAP_SIDE = "isolated"
    with pytest.raises(MirroringError, match="isolated instance"):
        add_mirror("m", Settings(kind="oci", sources=sources("r.example/x:1")), by="ada", now=now)


# Rules


@pytest.mark.parametrize(
    ("changes", "setting", "said"),
    [
        ({"schedule": "often"}, "schedule", "is not a schedule"),
        ({"proxy": "proxy.example:3128"}, "proxy", "http://host:port"),
        ({"proxy": "socks5://proxy.example:1080"}, "proxy", "http://host:port"),
        ({"proxy": "http://proxy.example:99999"}, "proxy", "http://host:port"),
        ({"proxy": "http://u:secret@proxy.example:3128"}, "proxy", "without user and password"),
        ({"due": timedelta(hours=30)}, "due", "must grow"),
        ({"expired": timedelta(seconds=5)}, "due", "at least one minute"),
        ({"keep": 0}, "keep", "Between 1 and"),
        ({"platforms": ["linux/amd64"]}, "platforms", "OCI images only"),
        ({"with_referrers": True}, "with_referrers", "OCI artifacts only"),
        ({"label": "x" * 81}, "label", "80 printable"),
        ({"after": "nobody"}, "after", "no other mirror"),
    ],
)
def test_it_refuses_a_setting_that_cannot_be_kept(mirror, now, changes, setting, said):
    before = fingerprint(mirror)
    with pytest.raises(RuleBroken) as refused:
        edit(mirror, now, **changes)
    assert refused.value.setting == setting
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)
    assert fingerprint(Mirror.objects.get()) == before


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        ("certificate, honestly", "no readable certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no readable certificate"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "private key"),
        ("x" * (1024 * 1024 + 1), "larger than 1 MiB"),
    ],
)
def test_it_refuses_a_ca_that_is_none(mirror, now, pem, said):
    with pytest.raises(RuleBroken, match=said):
        edit(mirror, now, sources=sources("one.example/x:2", ca_pem=pem))


def test_it_keeps_the_certificates_of_a_ca_file_and_nothing_else(mirror, now):
    pem = Authority("Plant CA").pem
    edit(mirror, now, sources=sources("one.example/x:2", ca_pem=f"# our CA, ask Jane\n{pem}\n"))
    assert mirror.sources.get().ca_pem == pem


@pytest.mark.parametrize(
    ("login", "setting"),
    [
        (logins.basic("u", ""), "password"),
        (logins.basic("", "p"), "username"),
        (logins.basic("u:v", "p"), "username"),
        (logins.basic("u\nv", "p"), "username"),
        (logins.basic("u", "p\r\nX: y"), "username"),
        (Login("token", secret="two words"), "token"),
        (Login("token", secret="a\r\nX: y"), "token"),
        (Login("token"), "token"),
        (Login("docker", secret="{}"), "docker_config"),
        (Login("cookie", secret="x"), "login"),
    ],
)
def test_it_refuses_half_a_login_and_one_that_could_forge_a_header(mirror, now, login, setting):
    with pytest.raises(RuleBroken) as refused:
        edit(mirror, now, sources=sources("one.example/x:2", login=login))
    assert refused.value.setting == setting


def test_limits_and_counts_like_the_kinds_own_are_kept_as_the_kinds_own(mirror, now):
    edited = edit(mirror, now, due=timedelta(hours=9), stale=timedelta(hours=25), keep=8)
    mirror = edited.mirror
    assert (mirror.due_seconds, mirror.stale_seconds, mirror.expired_seconds, mirror.keep) == (None, 90_000, None, None)
    assert mirror.limits.stale == timedelta(hours=25)
    assert edited.changes == ("stale after: the kind's own → 25 h",)


# Changing


def test_new_sources_stop_the_run_and_make_the_mirror_due(mirror, now):
    run, _ = runs.request_sync(mirror, trigger="hand", by="otto", now=now)
    later = now + timedelta(minutes=5)
    Mirror.objects.update(next_sync_at=now + timedelta(hours=1))
    edited = edit(mirror, later, sources=sources("two.example/trivy-db:2", "three.example/trivy-db:2"))
    run.refresh_from_db()
    mirror.refresh_from_db()
    assert run.state == SyncRun.State.CANCELLED
    assert run.error == "Stopped because ada changed what this mirror fetches."
    assert edited.fetches_anew and edited.stopped_runs == 1
    assert mirror.settings_version == 2
    assert mirror.next_sync_at == later
    assert references(mirror) == ["two.example/trivy-db:2", "three.example/trivy-db:2"]


def test_a_new_schedule_leaves_a_run_alone_and_moves_the_next_sync(mirror, now):
    run, _ = runs.request_sync(mirror, trigger="hand", by="otto", now=now)
    Mirror.objects.update(last_attempt_at=now)
    edit(mirror, now, schedule="1d")
    run.refresh_from_db()
    mirror.refresh_from_db()
    assert run.is_open
    assert mirror.settings_version == 1
    assert timedelta(days=1) <= mirror.next_sync_at - now <= timedelta(days=1, minutes=5)
    edit(mirror, now, schedule="manual")
    mirror.refresh_from_db()
    assert mirror.next_sync_at is None
    edit(mirror, now, schedule="")
    mirror.refresh_from_db()
    assert mirror.next_sync_at is not None and mirror.schedule_text == "1h"


def test_saving_what_is_there_already_changes_nothing(mirror, now):
    lines = AuditEntry.objects.count()
    edited = edit(mirror, now, sources=mirroring.specs_of(mirror), schedule="", label="db", keep=None)
    assert edited.changes == () and not edited.fetches_anew
    assert AuditEntry.objects.count() == lines


def test_a_source_that_stays_keeps_what_it_last_answered(mirror, now):
    Source.objects.update(memory={"scheme": "https"}, answered_at=now)
    edit(mirror, now, sources=sources("two.example/trivy-db:2", "one.example/trivy-db:2"))
    assert [source.memory for source in mirror.sources.all()] == [{"scheme": "https"}] * 2
    edit(mirror, now, sources=sources("two.example/trivy-db:2", "one.example/trivy-db:2", insecure=True))
    assert [source.memory for source in mirror.sources.all()] == [{}, {}]
    assert [source.insecure for source in mirror.sources.all()] == [True, True]


def test_passwords_are_sealed_and_never_told(mirror, now):
    edit(mirror, now, sources=sources("one.example/trivy-db:2", login=logins.basic("robot", "geheim-123")))
    source = mirror.sources.get()
    assert "geheim" not in source.secret_sealed
    assert content.vault().decrypt(source.secret_sealed) == "geheim-123"
    specs = mirroring.specs_of(mirror)
    assert "geheim" not in repr(specs) and source.secret_sealed not in repr(specs)
    edit(mirror, now, sources=sources("one.example/trivy-db:2", login=logins.basic("robot", "anders-456")))
    edit(mirror, now, sources=sources("one.example/trivy-db:2"))
    assert mirror.sources.get().secret_sealed == ""
    told = " ".join(f"{entry.subject} {entry.detail}" for entry in AuditEntry.objects.all())
    assert "user name robot" in told and "password changed" in told and "login removed" in told
    assert "geheim" not in told and "anders" not in told


def test_a_sealed_password_survives_an_edit_that_keeps_it(mirror, now):
    edit(mirror, now, sources=sources("one.example/trivy-db:2", login=logins.basic("robot", "geheim-123")))
    sealed = mirror.sources.get().secret_sealed
    edited = edit(mirror, now, sources=[*mirroring.specs_of(mirror), SourceSpec("two.example/trivy-db:2")])
    assert mirror.sources.first().secret_sealed == sealed
    assert mirror.sources.last().username == ""
    assert "password" not in " ".join(edited.changes)


def test_of_two_who_edit_at_once_the_second_is_told(mirror, now):
    seen = fingerprint(mirror)
    edit_mirror("db", Settings(schedule="2h"), by="ada", now=now, seen=seen)
    with pytest.raises(ChangedMeanwhile, match="Somebody else changed db"):
        edit_mirror("db", Settings(schedule="3h"), by="bob", now=now, seen=seen)
    assert Mirror.objects.get().schedule == "2h"


def test_the_kind_changes_only_while_nothing_is_held(mirror, now):
    edited = edit(mirror, now, kind="oci", platforms=["linux/AMD64", "linux/arm/v7"], with_referrers=True)
    assert edited.mirror.platforms == ["linux/amd64", "linux/arm/v7"]
    snapshot_of(mirror, now)
    with pytest.raises(MirroringError, match="its kind can no longer change"):
        edit(mirror, now, kind="trivy-db", platforms=[], with_referrers=False)


def test_a_changed_kind_needs_sources_of_that_kind(mirror, now):
    with pytest.raises(RuleBroken, match="VEX source"):
        edit(mirror, now, kind="vex")
    edit(mirror, now, kind="vex", sources=sources("https://r.example/vex"))
    assert references(mirror) == ["https://r.example/vex"]


def test_a_mirror_is_moved_in_the_list(data_dir, db, now):
    for name in ("a", "b", "c"):
        add_mirror(name, Settings(kind="oci", sources=sources("r.example/x:1")), by="ada", now=now)
    edit_mirror("c", Settings(after=None), by="ada", now=now)
    assert list(Mirror.objects.for_pages().values_list("name", flat=True)) == ["c", "a", "b"]
    edit_mirror("c", Settings(after="a"), by="ada", now=now)
    assert list(Mirror.objects.for_pages().values_list("name", flat=True)) == ["a", "c", "b"]
    edited = edit_mirror("c", Settings(after="a"), by="ada", now=now)
    assert edited.changes == ()


def test_an_unknown_mirror_is_named(db, now):
    for call in (
        lambda: edit_mirror("nobody", Settings(), by="", now=now),
        lambda: remove_mirror("nobody", by="", now=now),
        lambda: set_enabled("nobody", True, by="", now=now),
        lambda: mirroring.find("nobody"),
    ):
        with pytest.raises(UnknownMirror, match="no mirror called 'nobody'"):
            call()


# On and off


def test_a_disabled_mirror_stops_and_is_never_due(mirror, now):
    run, _ = runs.request_sync(mirror, trigger="hand", by="otto", now=now)
    assert set_enabled("db", False, by="ada", now=now)
    assert not set_enabled("db", False, by="ada", now=now)
    run.refresh_from_db()
    mirror.refresh_from_db()
    assert run.state == SyncRun.State.CANCELLED
    assert mirror.next_sync_at is None
    assert set_enabled("db", True, by="ada", now=now)
    mirror.refresh_from_db()
    assert mirror.next_sync_at == now
    told = AuditEntry.objects.filter(action__startswith="mirror").order_by("pk")
    assert [entry.action for entry in told] == ["mirror added", "mirror disabled", "mirror enabled"]


# Removing


@pytest.fixture
def bundled(mirror, now):
    snapshot = snapshot_of(mirror, now)
    mirror.switch_to(snapshot)
    bundle = Bundle.objects.create(
        id="b1", filename="airgap-b1.tar", state="ready", created_at=now, expires_at=now + timedelta(days=30)
    )
    BundleSnapshot.objects.create(bundle=bundle, snapshot=snapshot, mirror_name="db", label="db", digest=DIGEST)
    return bundle


def test_a_removed_mirror_takes_its_snapshots_and_history_with_it(mirror, now):
    snapshot_of(mirror, now)
    mirror.switch_to(Snapshot.objects.get())
    runs.request_sync(mirror, trigger="hand", by="otto", now=now)
    removal = remove_mirror("db", by="ada", now=now)
    assert (removal.snapshots, removal.size_bytes, removal.runs) == (1, 5, 1)
    assert not Mirror.objects.exists() and not Snapshot.objects.exists() and not SyncRun.objects.exists()
    assert AuditEntry.objects.get(action="mirror removed").detail == "1 snapshot, 1 run"


def test_a_mirror_in_a_bundle_that_can_still_be_had_is_not_removed_unasked(mirror, bundled, now):
    with pytest.raises(StillInBundles, match=r"1 bundle that can .* contains data of db: airgap-b1\.tar"):
        remove_mirror("db", by="ada", now=now)
    assert Mirror.objects.exists()


def test_a_bundle_expires_with_a_mirror_removed_on_purpose(mirror, bundled, now):
    remove_mirror("db", by="ada", now=now, expire_bundles=True)
    bundled.refresh_from_db()
    assert bundled.expired_at == now
    assert bundled.contents.get().mirror_name == "db"
    assert "airgap-b1.tar" in AuditEntry.objects.get(action="mirror removed").detail


def test_an_expired_bundle_does_not_hold_a_mirror(mirror, bundled, now):
    Bundle.objects.update(expired_at=now)
    remove_mirror("db", by="ada", now=now)
    assert not Mirror.objects.exists()
