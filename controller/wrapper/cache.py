"""The cache of images, RUN_DIR/images, as jobs and programs share it. Of each image there lie, under its key:

KEY.sif    the image; it gets this name when it is whole and on the disk
KEY.json   its record: what it was made of, and the SHA-256 of the file
KEY.used   touched whenever a job takes it
KEY.seen   of which file it was last seen that its SHA-256 is the recorded one: that file's marks
KEY.lock   locked by whoever makes it, replaces it or removes it

and, with a dot before it, what is on its way: KEY.partial, and KEY.N.old, which was replaced or removed.

A job that uses an image holds a shared lock on the file itself, so nobody else needs to know of it: who removes a file
has its lock alone first. POSIX locks work over NFS and end with the process; closing any descriptor of a file ends its
process's locks on it, so nothing of ours opens an image that it holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from api.contract.job.parameters import Image
from api.contract.job.private import require_private
from controller.wrapper.files import remove, replace

CHUNK = 1 << 20
"""Bytes that are read at once for a digest."""


@dataclass(frozen=True)
class CacheRecord:
    """What is known of an image since it was made."""

    source: str | None
    """The OCI reference it was pulled by."""
    definition: str | None
    """The text it was built from."""
    sha256: str
    """Of the file, in hexadecimal digits."""
    size: int
    """Bytes."""
    made_at: float
    """Unix seconds of the maker's clock."""
    host: str


@dataclass(frozen=True)
class Entry:
    """Where the files of one image are."""

    cache: Path
    key: str

    @property
    def image(self) -> Path:
        """The image itself."""
        return self.cache / f"{self.key}.sif"

    @property
    def record(self) -> Path:
        """Its record."""
        return self.cache / f"{self.key}.json"

    @property
    def used(self) -> Path:
        """The file whose time of modification says when it was used last."""
        return self.cache / f"{self.key}.used"

    @property
    def seen(self) -> Path:
        """The file that says of which image it was last seen that it is what the record says."""
        return self.cache / f"{self.key}.seen"

    @property
    def lock(self) -> Path:
        """The file that is locked by whoever changes any of the others. It is never removed."""
        return self.cache / f"{self.key}.lock"

    @property
    def partial(self) -> Path:
        """The image while it is made; nobody's, unless the lock is taken."""
        return self.cache / f".{self.key}.partial"

    def aside(self) -> Path:
        """Return a name for a file that has had its day."""
        return self.cache / f".{self.key}.{time.time_ns()}.old"


def is_cached(image: Image) -> bool:
    """Whether the cache is where it lies: a .sif file is used in its own place."""
    return image.definition is not None or "://" in str(image.source)


def key(image: Image | CacheRecord) -> str:
    """Return the name of an image: a digest of its definition's text, or of its reference as it is written."""
    what = f"definition\n{image.definition}" if image.definition is not None else f"source\n{image.source}"
    return hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def sha256(path: Path, check: Callable[[], None] = lambda: None) -> str:
    """Return the digest of a file; `check` is called on the way, and may raise. Raises `OSError`."""
    with path.open("rb") as file:
        return _sha256(file.fileno(), check)


def _sha256(descriptor: int, check: Callable[[], None]) -> str:
    digest, offset = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, CHUNK, offset):
        digest.update(chunk)
        offset += len(chunk)
        check()
    return digest.hexdigest()


def read_record(entry: Entry) -> CacheRecord | None:
    """Return an image's record; `None`: there is none, as of images that an older version made, or it is garbled."""
    try:
        told = json.loads(entry.record.read_text(encoding="utf-8"))
        return CacheRecord(
            source=None if told["source"] is None else str(told["source"]),
            definition=None if told["definition"] is None else str(told["definition"]),
            sha256=str(told["sha256"]),
            size=int(told["size"]),
            made_at=float(told["made_at"]),
            host=str(told["host"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def publish(entry: Entry, record: CacheRecord) -> None:
    """Put a whole partial image in its place, under its lock; one that was there lives on for those who use it.

    Raises `OSError`. There is never no image; at worst there is one without a record.
    """
    flush(entry.partial)
    remove(entry.record)
    with contextlib.suppress(FileNotFoundError):
        os.link(entry.image, entry.aside())
    entry.partial.replace(entry.image)
    flush(entry.cache)
    replace(entry.record, json.dumps(asdict(record)))
    with contextlib.suppress(OSError):  # then the first job looks
        replace(entry.seen, _mark(record, entry.image.stat()))
    clear_aside(entry)


def disproof(entry: Entry, descriptor: int, check: Callable[[], None]) -> str | None:
    """Say why an image that is held is not to be run; `None`: nothing speaks against it. Raises `OSError`.

    It has to be ours alone, and to be what was written down when it was made. All of it is read but where its marks are
    those that it had when that was last done; `check` is called on the way, and may raise. Of one without a record only
    the first can be said.
    """
    try:
        for path in (entry.cache, entry.image):
            require_private(path)
        record = read_record(entry)
        if record is None:
            return None
        require_private(entry.record)
    except PermissionError as error:
        return f"{error.filename}: {error.strerror}. Run: ai-factory secure"
    if key(record) != entry.key:
        return f"{entry.record.name} is the record of another image"
    mark = _mark(record, os.fstat(descriptor))
    if _seen(entry) == mark:
        return None
    found = _sha256(descriptor, check)
    if found != record.sha256:
        return f"its SHA-256 is {found}, but {record.sha256} was written down when it was made"
    with contextlib.suppress(OSError):  # the next job reads it once more
        replace(entry.seen, mark)
    return None


def _mark(record: CacheRecord, status: os.stat_result) -> str:
    """Return what is another for each content: the record's digest, and what changes when somebody writes to the file.

    All clients of a network file system see the same.
    """
    return f"{record.sha256} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _seen(entry: Entry) -> str:
    """Return the marks of the image that was read last; nothing if others may have written them."""
    try:
        require_private(entry.seen)
        return entry.seen.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def hold(path: Path, wait: Callable[[], None]) -> int | None:
    """Take a shared lock on an image; return the descriptor that keeps it, or `None` if there is no such image.

    `wait` is called while it is being removed, and may raise. Raises `OSError`. Where the file system has no locks the
    descriptor holds nothing: then nothing of the cache is ever removed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
    try:
        while _locked(descriptor, fcntl.LOCK_SH) is False:
            wait()
        if is_in_place(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def touch(entry: Entry) -> None:
    """Note that the image is used. What can't be noted is no reason to stop."""
    with contextlib.suppress(OSError):
        entry.used.touch(mode=0o600)


@contextlib.contextmanager
def locked(path: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file; `wait` is called between two tries, and may raise. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while _locked(descriptor, fcntl.LOCK_EX, must=True) is not True:
            wait()
        yield
    finally:
        os.close(descriptor)


def discard(entry: Entry) -> bool:
    """Remove an image that nobody uses, under its lock; whether it is gone. Raises `OSError`.

    Whoever opens it meanwhile either has its lock before us, or finds it gone once we have let go.
    """
    try:
        with _alone(entry.image):
            aside = entry.aside()
            entry.image.rename(aside)
            remove(entry.record)
            remove(entry.seen)
            remove(entry.used)
            flush(entry.cache)
            aside.unlink()
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def clear_aside(entry: Entry) -> None:
    """Remove, under the image's lock, what was replaced or half removed and is not used any more."""
    for path in entry.cache.glob(f".{entry.key}.*.old"):
        with contextlib.suppress(OSError), _alone(path):
            path.unlink()


def flush(path: Path) -> None:
    """Bring a file or folder to the disk; file systems that can't are not held up."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Have a file's lock alone; raises `BlockingIOError` if it is used, and `OSError`."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        if not _locked(descriptor, fcntl.LOCK_EX, must=True):
            raise BlockingIOError(errno.EAGAIN, "it is in use", str(path))
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int, must: bool = False) -> bool | None:
    """Try to lock; `False`: somebody else has it; `None`: there are no locks here, which raises if there `must` be."""
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if must:
            raise
        return None
    return True


def is_in_place(descriptor: int, path: Path) -> bool:
    """Whether a file that was opened still lies under that name."""
    try:
        mine, there = os.fstat(descriptor), path.stat()
    except OSError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
