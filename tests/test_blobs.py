"""The content store: what is under a name is what the name says, whatever happens while it is written."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mirrors import blobs
from mirrors.blobs import STAMP_NS, BlobStore, StoreError
from mirrors.digests import DigestError, digest_of
from mirrors.stopping import Stopped, StopSignal

DATA = bytes(range(256)) * 3000  # three chunks, the last one short
DIGEST = digest_of(DATA)
LONG = bytes(range(251)) * 12_000  # hashed in a thread


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


def fill(store: BlobStore, data: bytes = DATA, count: int | None = None) -> None:
    """Write the first `count` bytes of `data` into its partial and leave."""
    with store.partial(digest_of(data), len(data)) as partial:
        partial.write(data[partial.offset : count])


def spoil(store: BlobStore, digest: str = DIGEST, *, keep_stamp: bool = False) -> None:
    path = store.path(digest)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"!")
    if keep_stamp:
        os.utime(path, ns=(STAMP_NS, STAMP_NS))


class TestPut:
    def test_it_keeps_bytes_under_their_digest(self, store: BlobStore) -> None:
        assert store.put(DATA) == DIGEST
        assert store.path(DIGEST) == store.root / "blobs" / "sha256" / DIGEST[7:9] / DIGEST[7:]
        assert store.read(DIGEST) == DATA
        assert store.size(DIGEST) == len(DATA)
        assert store.has(DIGEST)
        with store.open(DIGEST) as file:
            assert file.read() == DATA

    def test_a_finished_blob_may_not_be_written(self, store: BlobStore) -> None:
        store.put(DATA)
        assert store.path(DIGEST).stat().st_mode & 0o777 == 0o444

    def test_killed_before_it_has_its_name_it_may_be_written_on(
        self, store: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Killed(BaseException):
            pass

        def die(*_: object) -> None:
            raise Killed

        # The sync of a gigabyte to disk takes seconds, and ordinary users cannot open a read-only file to go on.
        with pytest.raises(Killed), store.partial(DIGEST, len(DATA)) as partial:
            partial.write(DATA)
            monkeypatch.setattr("mirrors.blobs.store.os.fsync", die)
            partial.commit()
        (left,) = store.partials()
        assert left.path.stat().st_mode & 0o200

    def test_it_keeps_nothing_beside_the_blob(self, store: BlobStore) -> None:
        store.put(DATA)
        store.put(DATA)
        assert list(store.digests()) == [(DIGEST, len(DATA))]
        assert list(store.partials()) == []

    def test_it_replaces_a_damaged_blob(self, store: BlobStore) -> None:
        store.put(DATA)
        spoil(store)
        store.put(DATA)
        assert store.read(DIGEST) == DATA

    def test_it_syncs_the_file_before_and_the_folder_after_the_rename(self, store, monkeypatch) -> None:
        store.put(b"first, so that the folders are there")
        events: list[str] = []
        fsync, replace = os.fsync, Path.replace

        def recording_fsync(descriptor: int) -> None:
            events.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
            fsync(descriptor)

        def recording_replace(path: Path, target: Path) -> Path:
            events.append("rename")
            return replace(path, target)

        monkeypatch.setattr(os, "fsync", recording_fsync)
        monkeypatch.setattr(Path, "replace", recording_replace)
        store.put(DATA)
        assert events.index("file") < events.index("rename")
        assert events[-1] == "folder"

    @pytest.mark.parametrize("name", ["sha256:..", "../../etc/passwd", "sha256:" + "A" * 64, "md5:1", "", None])
    def test_a_hostile_digest_never_becomes_a_path(self, store: BlobStore, name: object) -> None:
        with pytest.raises(DigestError):
            store.path(name)  # type: ignore[arg-type]


class TestReading:
    def test_it_says_which_blob_is_missing(self, store: BlobStore) -> None:
        for attempt in (store.size, store.open, store.read):
            with pytest.raises(StoreError) as caught:
                attempt(DIGEST)
            assert caught.value.code == "missing"
            assert DIGEST[7:17] in str(caught.value)
            assert "store check" in str(caught.value)

    def test_it_never_hands_out_damaged_bytes(self, store: BlobStore) -> None:
        store.put(DATA)
        spoil(store, keep_stamp=True)
        with pytest.raises(StoreError, match="damaged") as caught:
            store.read(DIGEST)
        assert caught.value.code == "damaged"

    def test_it_refuses_to_read_a_large_blob_into_memory(self, store: BlobStore) -> None:
        store.put(DATA)
        with pytest.raises(StoreError, match="larger than the 100 bytes") as caught:
            store.read(DIGEST, limit=100)
        assert caught.value.code == "too-large"


class TestPartial:
    def test_it_becomes_a_blob_on_commit(self, store: BlobStore) -> None:
        with store.partial(DIGEST, len(DATA)) as partial:
            assert partial.offset == 0
            assert not partial.complete
            partial.write(DATA[:1000])
            assert not store.has(DIGEST)
            partial.write(DATA[1000:])
            partial.commit()
        assert store.read(DIGEST) == DATA
        assert list(store.partials()) == []

    def test_an_empty_blob_is_a_blob(self, store: BlobStore) -> None:
        with store.partial(digest_of(b""), 0) as partial:
            partial.commit()
        assert store.read(digest_of(b"")) == b""

    def test_it_resumes_and_shows_observers_every_byte_once(self, store: BlobStore) -> None:
        fill(store, count=300_000)
        seen: list[bytes] = []

        class Inspector:
            def __init__(self) -> None:
                self.seen = b""

            def feed(self, chunk: bytes) -> None:
                self.seen += chunk

        inspector = Inspector()
        with store.partial(DIGEST, len(DATA), [seen.append, inspector]) as partial:
            assert partial.offset == partial.resumed == 300_000
            partial.write(DATA[300_000:])
            partial.commit()
        assert b"".join(seen) == inspector.seen == DATA

    def test_a_killed_writer_leaves_bytes_that_are_resumed(self, store: BlobStore) -> None:
        program = (
            "import os, sys, pathlib; from mirrors.blobs import BlobStore\n"
            "with BlobStore(pathlib.Path(sys.argv[1])).partial(sys.argv[2], int(sys.argv[3])) as partial:\n"
            "    partial.write((bytes(range(256)) * 20)[:5000]); os.kill(os.getpid(), 9)"
        )
        killed = subprocess.run([sys.executable, "-c", program, str(store.root), DIGEST, str(len(DATA))], check=False)
        assert killed.returncode == -9
        with store.partial(DIGEST, len(DATA)) as partial:
            assert partial.offset == 5000

    def test_what_was_never_written_leaves_no_file(self, store: BlobStore) -> None:
        with store.partial(DIGEST, len(DATA)):
            pass
        assert list(store.partials()) == []

    def test_a_wrong_digest_is_refused_and_does_not_spoil_the_next_try(self, store: BlobStore) -> None:
        with store.partial(DIGEST, len(DATA)) as partial:
            partial.write(bytes(len(DATA)))
            with pytest.raises(DigestError) as caught:
                partial.commit()
        assert caught.value.code == "digest"
        assert not store.has(DIGEST)
        with store.partial(DIGEST, len(DATA)) as partial:
            assert partial.offset == 0

    def test_a_short_body_is_refused_and_kept_for_resume(self, store: BlobStore) -> None:
        with store.partial(DIGEST, len(DATA)) as partial:
            partial.write(DATA[:-1])
            with pytest.raises(DigestError) as caught:
                partial.commit()
        assert caught.value.code == "size"
        with store.partial(DIGEST, len(DATA)) as partial:
            assert partial.offset == len(DATA) - 1

    def test_a_byte_too_many_is_refused(self, store: BlobStore) -> None:
        with store.partial(DIGEST, len(DATA)) as partial:
            partial.write(DATA)
            with pytest.raises(DigestError, match="More than the"):
                partial.write(b"x")
        assert list(store.partials()) == []

    @pytest.mark.parametrize("garbage", [DATA + b"x", bytes(len(DATA))], ids=["too long", "whole and wrong"])
    def test_garbage_is_begun_again(self, store: BlobStore, garbage: bytes) -> None:
        fill(store, count=10)
        (store.root / "partial" / DIGEST[7:]).write_bytes(garbage)
        seen: list[bytes] = []
        with store.partial(DIGEST, len(DATA), [seen.append]) as partial:
            assert partial.offset == 0
            partial.write(DATA)
            partial.commit()
        assert b"".join(seen) == DATA

    def test_a_garbage_beginning_costs_one_try(self, store: BlobStore) -> None:
        fill(store, count=10)
        (store.root / "partial" / DIGEST[7:]).write_bytes(bytes(1000))
        with store.partial(DIGEST, len(DATA)) as partial:
            partial.write(DATA[partial.offset :])
            with pytest.raises(DigestError):
                partial.commit()
        with store.partial(DIGEST, len(DATA)) as partial:
            partial.write(DATA[partial.offset :])
            partial.commit()
        assert store.read(DIGEST) == DATA

    def test_a_whole_partial_needs_only_its_commit(self, store: BlobStore) -> None:
        fill(store)
        with store.partial(DIGEST, len(DATA)) as partial:
            assert partial.offset == len(DATA)
            partial.commit()
        assert store.has(DIGEST)

    def test_an_observer_that_refuses_bytes_makes_them_go(self, store: BlobStore) -> None:
        def refuse(chunk: bytes) -> None:
            raise ValueError("not gzip")

        with pytest.raises(ValueError, match="not gzip"), store.partial(DIGEST, len(DATA), [refuse]) as partial:
            partial.write(DATA[:100])
        assert list(store.partials()) == []

    def test_stopping_keeps_the_bytes(self, store: BlobStore) -> None:
        stop = StopSignal()

        def press_stop(chunk: bytes) -> None:
            stop.set()
            stop.check()

        with pytest.raises(Stopped), store.partial(DIGEST, len(DATA), [press_stop], stop=stop) as partial:
            partial.write(DATA[:100])
        with store.partial(DIGEST, len(DATA)) as partial:
            assert partial.offset == 100

    def test_it_stops_while_it_reads_again_what_was_there(self, store: BlobStore) -> None:
        fill(store, count=400_000)
        stop = StopSignal()
        stop.set()
        with pytest.raises(Stopped), store.partial(DIGEST, len(DATA), stop=stop):
            pass

    def test_a_blob_that_is_there_needs_no_writing(self, store: BlobStore) -> None:
        store.put(DATA)
        seen: list[bytes] = []
        with store.partial(DIGEST, len(DATA), [seen.append]) as partial:
            assert partial.complete
            assert partial.offset == len(DATA)
            with pytest.raises(DigestError):
                partial.write(b"more")
            partial.commit()
        assert b"".join(seen) == DATA
        assert list(store.partials()) == []

    def test_a_damaged_blob_is_set_aside_and_written_again(self, store: BlobStore) -> None:
        store.put(DATA)
        spoil(store)
        with store.partial(DIGEST, len(DATA)) as partial:
            assert not partial.complete
            partial.write(DATA)
            partial.commit()
        assert store.read(DIGEST) == DATA
        assert (store.root / "damaged" / DIGEST[7:]).exists()

    def test_rot_that_nobody_wrote_is_found_when_observers_read_it(self, store: BlobStore) -> None:
        store.put(DATA)
        spoil(store, keep_stamp=True)
        with pytest.raises(StoreError, match="damaged"), store.partial(DIGEST, len(DATA), [len]):
            pass
        assert not store.has(DIGEST)

    def test_a_stated_size_that_is_not_the_blobs_is_refused(self, store: BlobStore) -> None:
        store.put(DATA)
        with pytest.raises(DigestError) as caught, store.partial(DIGEST, len(DATA) + 1):
            pass
        assert caught.value.code == "size"


class TestTwoWriters:
    def test_the_second_is_told_that_it_is_busy(self, store: BlobStore) -> None:
        with store.partial(DIGEST, len(DATA)) as partial:
            partial.write(DATA[:10])
            with (
                pytest.raises(StoreError, match="being downloaded by another run") as caught,
                store.partial(DIGEST, len(DATA), wait_seconds=0),
            ):
                pass
        assert caught.value.code == "busy"

    def test_the_second_can_be_stopped_while_it_waits(self, store: BlobStore) -> None:
        stop = StopSignal()
        stop.set()
        with (
            store.partial(DIGEST, len(DATA)),
            pytest.raises(Stopped),
            store.partial(DIGEST, len(DATA), stop=stop),
        ):
            pass

    def test_the_second_takes_what_the_first_finished(self, store: BlobStore) -> None:
        waiting, result = threading.Event(), []

        class Watched(StopSignal):
            def wait(self, seconds: float) -> bool:
                waiting.set()
                return super().wait(seconds)

        def second() -> None:
            with store.partial(DIGEST, len(DATA), stop=Watched()) as partial:
                result.append(partial.complete)

        with store.partial(DIGEST, len(DATA)) as partial:
            thread = threading.Thread(target=second)
            thread.start()
            assert waiting.wait(10)
            partial.write(DATA)
            partial.commit()
        thread.join(10)
        assert result == [True]
        assert store.is_pristine(DIGEST, len(DATA))


class TestIncoming:
    def test_it_learns_the_name_at_the_end(self, store: BlobStore) -> None:
        with store.incoming(10**6) as incoming:
            incoming.write(b"wrong start")
            incoming.restart()
            incoming.write(DATA[:7])
            incoming.write(DATA[7:])
            assert incoming.offset == len(DATA)
            assert incoming.commit() == (DIGEST, len(DATA))
        assert store.read(DIGEST) == DATA
        assert list(store.partials()) == []

    def test_what_is_not_committed_goes(self, store: BlobStore) -> None:
        with store.incoming(100) as incoming:
            incoming.write(b"abc")
        assert list(store.partials()) == []

    def test_it_refuses_more_than_the_limit(self, store: BlobStore) -> None:
        with store.incoming(10) as incoming, pytest.raises(DigestError, match="More than the 10 bytes"):
            incoming.write(b"12345678901")

    @pytest.mark.parametrize("limit", [len(LONG), 10 * len(LONG)])
    def test_what_is_long_is_hashed_in_order_by_a_thread_that_ends(self, store: BlobStore, limit: int) -> None:
        with store.incoming(limit) as incoming:
            incoming.write(b"wrong start")
            incoming.restart()
            for start in range(0, len(LONG), 70_001):
                incoming.write(LONG[start : start + 70_001])
            incoming.require(digest_of(LONG))
            with pytest.raises(DigestError, match=f"have the digest {digest_of(LONG)}"):
                incoming.require(DIGEST)
            assert incoming.commit() == (digest_of(LONG), len(LONG))
        assert store.read(digest_of(LONG)) == LONG
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("sha256")]

    def test_its_thread_ends_when_the_disk_refuses(self, store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "full")

        with store.incoming(len(LONG)) as incoming:
            incoming.write(LONG[:100_000])
            monkeypatch.setattr(os, "pwrite", full)
            with pytest.raises(StoreError, match="the file system is full"):
                incoming.write(LONG[100_000:])
        assert list(store.partials()) == []
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("sha256")]


class TestPristine:
    def test_it_is_until_somebody_writes(self, store: BlobStore) -> None:
        store.put(DATA)
        assert store.is_pristine(DIGEST)
        assert store.is_pristine(DIGEST, len(DATA))
        assert not store.is_pristine(DIGEST, len(DATA) + 1)
        spoil(store)
        assert not store.is_pristine(DIGEST)

    def test_a_missing_blob_is_not(self, store: BlobStore) -> None:
        assert not store.is_pristine(DIGEST)

    def test_a_check_marks_it_again(self, store: BlobStore) -> None:
        store.put(DATA)
        store.path(DIGEST).touch()
        assert not store.is_pristine(DIGEST)
        assert store.verify(DIGEST) == "ok"
        assert store.is_pristine(DIGEST)


class TestVerify:
    def test_it_tells_ok_missing_and_damaged(self, store: BlobStore) -> None:
        assert store.verify(DIGEST) == "missing"
        store.put(DATA)
        read: list[int] = []
        assert store.verify(DIGEST, progress=read.append) == "ok"
        assert sum(read) == len(DATA)
        spoil(store, keep_stamp=True)
        assert store.verify(DIGEST) == "damaged"

    def test_it_can_be_stopped(self, store: BlobStore) -> None:
        store.put(DATA)
        stop = StopSignal()
        stop.set()
        with pytest.raises(Stopped):
            store.verify(DIGEST, stop=stop)

    def test_quarantine_makes_room_for_a_new_copy(self, store: BlobStore) -> None:
        assert store.quarantine(DIGEST) is None
        store.put(DATA)
        spoil(store)
        assert store.quarantine(DIGEST) == store.root / "damaged" / DIGEST[7:]
        assert not store.has(DIGEST)
        assert store.damaged_bytes() == len(DATA)
        assert store.remove_damaged(datetime.now(UTC) - timedelta(hours=1)) == 0
        assert store.remove_damaged(datetime.now(UTC) + timedelta(hours=1)) == len(DATA)
        assert store.damaged_bytes() == 0


class TestHousekeeping:
    def test_it_removes_old_partials_that_nobody_holds(self, store: BlobStore) -> None:
        fill(store, count=100)
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        other = b"other" * 10
        assert store.remove_partials(datetime(2020, 1, 1, tzinfo=UTC)) == 0
        with store.partial(digest_of(other), len(other)) as partial:
            partial.write(other[:5])
            assert {found.digest for found in store.partials()} == {DIGEST, digest_of(other)}
            assert store.remove_partials(tomorrow) == 100
        assert [found.digest for found in store.partials()] == [digest_of(other)]

    def test_what_a_killed_process_left_without_a_name_goes_at_once_and_nothing_else(self, store: BlobStore) -> None:
        fill(store, count=100)
        with store.incoming(10) as incoming:
            incoming.write(b"123")
            (store.root / "partial" / "incoming-0123456789abcdef").write_bytes(b"left by a killed process")
            assert store.remove_abandoned() == 24
            assert sorted(found.size for found in store.partials()) == [3, 100]
            incoming.write(b"456")
            assert incoming.commit() == (digest_of(b"123456"), 6)

    def test_what_was_removed_as_abandoned_before_it_was_locked_is_begun_anew(
        self, store: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock = fcntl.flock

        def slow(descriptor: int, how: int) -> None:
            monkeypatch.undo()
            assert store.remove_abandoned() == 0
            lock(descriptor, how)

        monkeypatch.setattr("mirrors.blobs.store.fcntl.flock", slow)
        with store.incoming(10) as incoming:
            incoming.write(b"123456")
            assert incoming.commit() == (digest_of(b"123456"), 6)
        assert store.read(digest_of(b"123456")) == b"123456"

    def test_it_counts_what_it_holds(self, store: BlobStore) -> None:
        assert store.free_bytes() > 0
        store.put(DATA)
        fill(store, b"x" * 50, count=20)
        assert list(store.digests()) == [(DIGEST, len(DATA))]
        assert [partial.size for partial in store.partials()] == [20]
        store.remove(DIGEST)
        store.remove(DIGEST)
        assert list(store.digests()) == []

    def test_strange_files_are_no_blobs(self, store: BlobStore) -> None:
        store.put(DATA)
        (store.path(DIGEST).parent / "note.txt").write_text("hello")
        (store.root / "blobs" / "sha256" / "file").write_text("hello")
        assert [digest for digest, _ in store.digests()] == [DIGEST]


class TestDiskTrouble:
    """A full disk cannot be had in a test without rights; the system call that would say so is replaced."""

    @pytest.mark.parametrize(
        ("number", "code", "words"),
        [
            (errno.ENOSPC, "full", "the file system is full. Free space"),
            (errno.EDQUOT, "full", "the file system is full. Free space"),
            (errno.EROFS, "read-only", "mount the file system writable"),
            (errno.EACCES, "read-only", "the right to write there"),
            (errno.EIO, "damaged", "check it (dmesg, SMART)"),
            (errno.EMFILE, "failed", "Too many open files"),
        ],
    )
    def test_each_reason_is_a_sentence(self, store, monkeypatch, number: int, code: str, words: str) -> None:
        def refuse(descriptor: int, data: bytes, offset: int) -> int:
            raise OSError(number, os.strerror(number))

        with store.partial(DIGEST, len(DATA)) as partial:
            partial.write(DATA[:100])
            with monkeypatch.context() as patch, pytest.raises(StoreError) as caught:
                patch.setattr(os, "pwrite", refuse)
                partial.write(DATA[100:])
            assert caught.value.code == code
            assert words in str(caught.value)
            assert str(store.root) in str(caught.value)

    def test_a_disk_that_fills_up_in_the_middle_keeps_what_fitted(self, store, monkeypatch) -> None:
        real, room = os.pwrite, [150_000]

        def until_full(descriptor: int, data: bytes, offset: int) -> int:
            if not room[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = real(descriptor, data[: room[0]], offset)
            room[0] -= written
            return written

        seen: list[bytes] = []
        with store.partial(DIGEST, len(DATA), [seen.append]) as partial:
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwrite", until_full)
                partial.write(DATA[:100_000])
                with pytest.raises(StoreError, match="full"):
                    partial.write(DATA[100_000:300_000])
            assert partial.offset == 100_000
            partial.write(DATA[100_000:])  # somebody made room
            partial.commit()
        assert b"".join(seen) == DATA
        assert store.read(DIGEST) == DATA

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
    def test_a_really_full_device_is_full(self, store: BlobStore) -> None:
        descriptor = os.open("/dev/full", os.O_WRONLY)
        try:
            with pytest.raises(StoreError, match="full"), store._explained("writing", DIGEST):
                blobs.writing._write_all(descriptor, b"x", 0)
        finally:
            os.close(descriptor)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_without_write_permission_is_read_only(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o555)
        try:
            with pytest.raises(StoreError) as caught:
                BlobStore(tmp_path / "store").put(DATA)
            assert caught.value.code == "read-only"
        finally:
            tmp_path.chmod(0o755)

    def test_a_file_in_the_way_is_said_so(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("not a folder")
        with pytest.raises(StoreError, match="Not a directory"):
            BlobStore(tmp_path / "store").put(DATA)
