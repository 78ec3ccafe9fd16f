"""The job folders: private, whole or not at all, and one winner of a claim."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import controller.rundir
import controller.wrapper.report
from api.contract.job.private import make_folder
from api.contract.launch import Health
from controller.bundle import bundle, launch_script
from controller.core.attempt import ProbeSpec
from controller.core.job_files import Held, JobExit, JobFiles, Revoked, Unreadable, Verdict
from controller.ports import UsedTokenError
from controller.rundir import SharedRunDirs, read_job_files
from controller.wrapper.locks import claim
from controller.wrapper.report import Report
from tests.another_user import UID, give_away
from tests.descriptors import none_left

TOKEN = "af-x-one-0-1"


@pytest.fixture(autouse=True)
def careless_umask() -> Iterator[None]:
    """Where groups may write by default, nobody else's job may come to run in our name."""
    before = os.umask(0o002)
    yield
    os.umask(before)


@pytest.fixture
def run_dirs(tmp_path: Path) -> SharedRunDirs:
    return SharedRunDirs(tmp_path / "far" / "run", "x", "")


@pytest.fixture
def folder(run_dirs: SharedRunDirs) -> Path:
    folder = run_dirs.folder("one", TOKEN)
    make_folder(folder)
    return folder


async def read(run_dirs: SharedRunDirs) -> JobFiles:
    """Return what the job wrote."""
    return (await run_dirs.read("one", [TOKEN]))[TOKEN]


def names(folder: Path | str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def modes(top: Path) -> dict[str, int]:
    return {str(p.relative_to(top)): stat.S_IMODE(p.stat().st_mode) for p in (top, *top.rglob("*"))}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"ok": True, "failures": 0, "message": ""}, Verdict(ok=True, failures=0)),
        ({"ok": False, "failures": 3, "message": "no\0 room"}, Verdict(ok=False, failures=3, message="no room")),
        ({"ok": False, "failures": 1, "message": 7}, Verdict(ok=False, failures=1)),
        ({"ok": False, "failures": 1, "message": "x" * 9000}, Verdict(ok=False, failures=1, message="x" * 4000)),
        (None, None),
        ([], None),
        ("well", None),
        ({"ok": 1, "failures": 0}, None),
        ({"ok": True}, None),
        ({"ok": False, "failures": -1}, None),
        ({"ok": False, "failures": 2**40}, None),
    ],
)
async def test_what_a_job_says_of_its_health(
    run_dirs: SharedRunDirs, folder: Path, told: object, expected: Verdict | None
) -> None:
    (folder / "state.json").write_text(json.dumps({"step": "serving", "port": 80, "health": told}))
    assert await run_dirs.verdict("one", TOKEN) == expected


async def test_a_job_that_says_nothing_of_its_health(run_dirs: SharedRunDirs) -> None:
    assert await run_dirs.verdict("one", TOKEN) is None


class TestPrepare:
    async def test_makes_what_the_job_needs(self, run_dirs: SharedRunDirs, tmp_path: Path) -> None:
        made = await run_dirs.prepare("one", TOKEN, b'{"a": 1}')
        assert Path(made.path) == tmp_path / "far" / "run" / "x" / "one" / TOKEN
        assert (Path(made.path) / "params.json").read_bytes() == b'{"a": 1}'
        assert Path(made.wrapper).read_bytes() == bundle()
        assert Path(made.launch_script).read_text() == launch_script()

    async def test_for_nobody_else(self, tmp_path: Path) -> None:
        await SharedRunDirs(tmp_path / "run", "x", "module load apptainer").prepare("one", TOKEN, b"{}")
        found = modes(tmp_path / "run")
        assert len(found) == 9
        for name, mode in found.items():
            expected = 0o700 if (tmp_path / "run" / name).is_dir() else 0o600
            assert mode == expected, name

    async def test_leaves_no_drafts(self, run_dirs: SharedRunDirs, tmp_path: Path) -> None:
        await run_dirs.prepare("one", TOKEN, b"{}")
        assert not list(tmp_path.rglob(".*"))

    async def test_twice_is_fine(self, run_dirs: SharedRunDirs) -> None:
        first = await run_dirs.prepare("one", TOKEN, b"1")
        assert await run_dirs.prepare("one", TOKEN, b"2") == first
        assert (Path(first.path) / "params.json").read_bytes() == b"2"

    async def test_the_prologue_travels_with_the_job(self, tmp_path: Path) -> None:
        made = await SharedRunDirs(tmp_path, "x", "module load a\nexport B=1  \n\n").prepare("one", TOKEN, b"{}")
        assert (Path(made.path) / "prologue.sh").read_text() == "module load a\nexport B=1\n"

    async def test_no_prologue_is_no_file(self, run_dirs: SharedRunDirs) -> None:
        made = await run_dirs.prepare("one", TOKEN, b"{}")
        assert not (Path(made.path) / "prologue.sh").exists()

    async def test_another_version_never_uses_this_ones_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = await SharedRunDirs(tmp_path, "x", "").prepare("one", "a", b"{}")
        monkeypatch.setattr(controller.rundir, "launch_script", lambda: "#!/bin/bash\n# newer\n")
        second = await SharedRunDirs(tmp_path, "x", "").prepare("one", "b", b"{}")
        monkeypatch.setattr(controller.rundir, "bundle", lambda: b"newer")
        third = await SharedRunDirs(tmp_path, "x", "").prepare("one", "c", b"{}")
        assert Path(first.launch_script).read_text() == launch_script()
        assert Path(second.launch_script).read_text() == "#!/bin/bash\n# newer\n"
        assert Path(third.wrapper).read_bytes() == b"newer"
        assert Path(first.wrapper).read_bytes() == bundle()

    @pytest.mark.parametrize("which", ["wrapper", "launch_script"])
    async def test_a_supervisor_that_was_changed_is_written_anew(
        self, run_dirs: SharedRunDirs, which: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        made = await run_dirs.prepare("one", "a", b"{}")
        path = Path(getattr(made, which))
        before, content = path.stat(), path.read_bytes()
        path.write_bytes(b"#" * len(content))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert not caplog.records
        await run_dirs.prepare("one", "b", b"{}")
        assert path.read_bytes() == content
        (told,) = caplog.records
        assert (told.levelname, told.__dict__["file"]) == ("ERROR", path)

    @pytest.mark.parametrize("which", ["wrapper", "launch_script"])
    async def test_a_supervisor_that_was_there_before_is_looked_at(
        self, run_dirs: SharedRunDirs, tmp_path: Path, which: str
    ) -> None:
        path = Path(getattr(run_dirs.job_folder("one", TOKEN), which))
        make_folder(path.parent)
        for plant in (lambda: path.write_bytes(b"planted"), lambda: give_away(path), lambda: path.chmod(0o666)):
            plant()
            await SharedRunDirs(tmp_path / "far" / "run", "x", "").prepare("one", TOKEN, b"{}")
            assert path.read_bytes() in (bundle(), launch_script().encode())
            assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (os.getuid(), 0o600)

    async def test_a_supervisor_that_was_seen_is_not_read_again(
        self, run_dirs: SharedRunDirs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await run_dirs.prepare("one", "a", b"{}")
        monkeypatch.setattr(controller.rundir, "_holds", lambda *_: pytest.fail("it is read again"))
        await run_dirs.prepare("one", "b", b"{}")

    @pytest.mark.parametrize("name", [".", "lib", "x", "x/one", f"x/one/{TOKEN}"])
    async def test_nothing_is_put_where_others_have_a_hand(self, tmp_path: Path, name: str) -> None:
        run_dirs = SharedRunDirs(tmp_path / "run", "x", "")
        folder = tmp_path / "run" / name
        make_folder(folder)
        folder.chmod(0o770)
        with pytest.raises(PermissionError, match="others may write to it"):
            await run_dirs.prepare("one", TOKEN, b"{}")
        folder.chmod(0o700)
        give_away(folder)
        with pytest.raises(PermissionError, match=f"belongs to user {UID}"):
            await run_dirs.prepare("one", TOKEN, b"{}")
        assert not list(tmp_path.rglob("params.json"))

    async def test_what_can_not_be_written_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="file"):
            await SharedRunDirs(tmp_path / "file", "x", "").prepare("one", TOKEN, b"{}")

    @pytest.mark.parametrize("claim", ['{"job_id": 7, "restart_count": 0}', '{"revoked": true}', ""])
    async def test_a_folder_that_is_claimed_is_of_an_earlier_life(
        self, run_dirs: SharedRunDirs, folder: Path, claim: str
    ) -> None:
        (folder / "claim").write_text(claim)
        with pytest.raises(UsedTokenError):
            await run_dirs.prepare("one", TOKEN, b"{}")
        assert names(folder) == ["claim"]

    async def test_a_full_disk_leaves_the_old_or_nothing(
        self, run_dirs: SharedRunDirs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await run_dirs.prepare("one", TOKEN, b"old")

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            await run_dirs.prepare("one", TOKEN, b"new")
        assert (Path(made.path) / "params.json").read_bytes() == b"old"
        assert names(made.path) == ["params.json"]


class TestReading:
    async def test_a_folder_that_is_not_there_says_nothing(self, run_dirs: SharedRunDirs) -> None:
        assert await read(run_dirs) == JobFiles()

    async def test_all_that_a_job_tells(self, run_dirs: SharedRunDirs, folder: Path) -> None:
        claim.take(folder, 42)
        told = {
            "step": "serving",
            "detail": "KV cache\nsize: 9 tokens",
            "port": 8123,
            "network_refusal": "Not\npermitted",
            "told_to_end_at": 1700000000,
            "empty": True,
        }
        (folder / "state.json").write_text(json.dumps(told))
        (folder / "exit.json").write_text('{"code": -9, "reason": "EngineExited", "message": "It „died“."}')
        assert await read(run_dirs) == JobFiles(
            claim=Held(job_id=42),
            step="serving",
            detail="KV cache size: 9 tokens",
            port=8123,
            network_refusal="Not permitted",
            told_to_end_at=1700000000.0,
            is_empty=True,
            exit=JobExit(code=-9, reason="EngineExited", message="It „died“."),
        )

    async def test_the_last_words_of_a_job_are_few_and_fit_for_a_message(
        self, run_dirs: SharedRunDirs, folder: Path
    ) -> None:
        assert await run_dirs.last_words("one", TOKEN) == ""
        (folder / "stderr.log").write_text(
            "x" * 5000 + "\n\n" + "\n".join(f"line\t{n} \x1b[1m" for n in range(9)) + "\n"
        )
        assert await run_dirs.last_words("one", TOKEN) == "\n".join(f"line {n} [1m" for n in range(5, 9))
        (folder / "stderr.log").unlink()
        os.mkfifo(folder / "stderr.log")
        assert await run_dirs.last_words("one", TOKEN) == ""

    @pytest.mark.parametrize(
        "content",
        ["", "{", "null", "[]", '"x"', "\0\0\0", '{"port":', "[" * 100_000, "9" * 5000, '{"a": NaN}', "\ud800"],
    )
    def test_garbled_files_read_as_absent(self, folder: Path, content: str) -> None:
        for name in ("state.json", "exit.json"):
            (folder / name).write_bytes(content.encode(errors="surrogatepass"))
        assert read_job_files(folder) == JobFiles()

    @pytest.mark.parametrize(
        "content",
        ["", "{", "null", "[]", "{}", '{"job_id": "7"}', '{"job_id": true}', '{"job_id": 0}', '{"job_id": -1}',
         f'{{"job_id": {10**30}}}', '{"revoked": 1}'],
    )  # fmt: skip
    def test_a_garbled_claim_is_still_somebodys(self, folder: Path, content: str) -> None:
        (folder / "claim").write_text(content)
        assert read_job_files(folder).claim == Unreadable()

    @pytest.mark.parametrize("port", ["0", "65536", "-1", "true", '"80"', "80.5", "null", str(10**30)])
    def test_a_port_that_is_none_reads_as_absent(self, folder: Path, port: str) -> None:
        (folder / "state.json").write_text(f'{{"step": "serving", "port": {port}}}')
        assert read_job_files(folder) == JobFiles(step="serving")

    @pytest.mark.parametrize(
        "content",
        ['{"code": "1", "reason": "R"}', '{"code": true, "reason": "R"}', '{"code": 1}', '{"code": 1, "reason": ""}',
         '{"code": 1, "reason": 5}', f'{{"code": {2**31}, "reason": "R"}}', '{"code": null, "reason": "R"}'],
    )  # fmt: skip
    def test_an_exit_that_is_none_reads_as_absent(self, folder: Path, content: str) -> None:
        (folder / "exit.json").write_text(content)
        assert read_job_files(folder).exit is None

    def test_texts_are_such_as_the_database_can_hold(self, folder: Path) -> None:
        """PostgreSQL refuses NUL, every database a lone surrogate, as an undecodable byte of a log becomes in JSON."""
        message = "a\0b\udcffc" + "x" * 10_000
        (folder / "exit.json").write_text(json.dumps({"code": 1, "reason": "R\0" * 100, "message": message}))
        (folder / "state.json").write_text('{"step": "\\ud800\\u0000"}')
        found = read_job_files(folder)
        assert found.exit is not None
        assert found.exit.message == "ab?c" + "x" * 3996
        assert found.exit.reason == "R" * 64
        assert found.step == "?"

    def test_a_huge_file_is_not_read_to_its_end(self, folder: Path) -> None:
        with (folder / "state.json").open("wb") as file:
            file.truncate(10**11)
        assert read_job_files(folder) == JobFiles()

    def test_a_pipe_in_place_of_a_file_holds_nothing_up(self, folder: Path) -> None:
        for name in ("state.json", "exit.json"):
            (folder / name).unlink(missing_ok=True)
            os.mkfifo(folder / name)
        assert read_job_files(folder) == JobFiles()

    def test_a_folder_in_place_of_a_file_reads_as_absent(self, folder: Path) -> None:
        for name in ("state.json", "exit.json", "claim"):
            (folder / name).mkdir()
        assert read_job_files(folder) == JobFiles(claim=Unreadable())


class TestClosing:
    async def test_a_file_says_who_ends_the_job(self, run_dirs: SharedRunDirs, folder: Path) -> None:
        for _ in range(2):
            await run_dirs.say_closed("one", TOKEN)
            assert names(folder) == ["closed"]
            assert stat.S_IMODE((folder / "closed").stat().st_mode) == 0o600

    async def test_where_the_folder_is_gone_nothing_is_said(self, run_dirs: SharedRunDirs, tmp_path: Path) -> None:
        await run_dirs.say_closed("never", TOKEN)
        assert not list(tmp_path.rglob("closed"))


class TestTellingADoor:
    async def test_a_file_says_that_nobody_new_is_let_in(self, run_dirs: SharedRunDirs, folder: Path) -> None:
        assert not (await read(run_dirs)).is_told_to_drain
        for _ in range(2):
            await run_dirs.tell_door("one", TOKEN, drains=True)
            assert (await read(run_dirs)).is_told_to_drain
            assert names(folder) == ["drain"]
            assert (folder / "drain").read_bytes() == b""
            assert stat.S_IMODE((folder / "drain").stat().st_mode) == 0o600
        for _ in range(2):
            await run_dirs.tell_door("one", TOKEN, drains=False)
            assert not (await read(run_dirs)).is_told_to_drain
            assert names(folder) == []

    async def test_where_the_folder_is_gone_nothing_is_told(self, run_dirs: SharedRunDirs, tmp_path: Path) -> None:
        for drains in (True, False):
            await run_dirs.tell_door("never", TOKEN, drains=drains)
        assert not list(tmp_path.rglob("drain"))


class TestRevoking:
    async def test_takes_a_free_claim(self, run_dirs: SharedRunDirs, folder: Path) -> None:
        await run_dirs.revoke("one", TOKEN)
        assert (await read(run_dirs)).claim == Revoked()
        assert names(folder) == ["claim"]
        assert stat.S_IMODE((folder / "claim").stat().st_mode) == 0o600
        with pytest.raises(claim.ClaimLostError):
            claim.take(folder, 7)

    async def test_what_is_revoked_keeps_no_secret(self, run_dirs: SharedRunDirs) -> None:
        made = await run_dirs.prepare("one", TOKEN, b'{"secret": "x"}')
        await run_dirs.revoke("one", TOKEN)
        assert names(made.path) == ["claim"]

    async def test_what_a_job_has_claimed_it_may_read(self, run_dirs: SharedRunDirs) -> None:
        made = await run_dirs.prepare("one", TOKEN, b'{"secret": "x"}')
        claim.take(Path(made.path), 7)
        await run_dirs.revoke("one", TOKEN)
        assert names(made.path) == ["claim", "params.json"]

    async def test_what_was_not_taken_is_cleared(self, run_dirs: SharedRunDirs) -> None:
        made = await run_dirs.prepare("one", TOKEN, b'{"secret": "x"}', PROBE_SPEC)
        for _ in range(2):
            await run_dirs.clear("one", TOKEN)
            assert names(made.path) == ["probe.json"]
        await run_dirs.clear("one", "never made")

    async def test_leaves_a_taken_one(self, run_dirs: SharedRunDirs, folder: Path) -> None:
        claim.take(folder, 7)
        await run_dirs.revoke("one", TOKEN)
        assert (await read(run_dirs)).claim == Held(job_id=7)
        assert names(folder) == ["claim"]

    async def test_twice_is_fine(self, run_dirs: SharedRunDirs) -> None:
        await run_dirs.revoke("one", TOKEN)
        await run_dirs.revoke("one", TOKEN)
        assert (await read(run_dirs)).claim == Revoked()

    async def test_makes_the_folder_that_was_never_made(self, run_dirs: SharedRunDirs, tmp_path: Path) -> None:
        await run_dirs.revoke("one", TOKEN)
        assert {mode for name, mode in modes(tmp_path / "far" / "run").items() if "claim" not in name} == {0o700}

    async def test_what_can_not_be_tried_is_an_error(
        self, run_dirs: SharedRunDirs, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "link", broken)
        with pytest.raises(OSError, match="Input/output"):
            await run_dirs.revoke("one", TOKEN)
        assert names(folder) == []

    def test_of_a_revocation_and_jobs_at_once_exactly_one_wins(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        winners = set()
        for round_ in range(12):
            run_dirs = SharedRunDirs(tmp_path / str(round_), "x", "")
            folder = run_dirs.folder("one", TOKEN)
            make_folder(folder)
            start, won = context.Event(), context.SimpleQueue()
            contenders = [
                context.Process(target=_contend, args=(run_dirs, folder, job_id, start, won)) for job_id in range(4)
            ]
            for contender in contenders:
                contender.start()
            start.set()
            for contender in contenders:
                contender.join(10)
            found = read_job_files(folder).claim
            winner = found.job_id if isinstance(found, Held) else None
            assert winner is not None or found == Revoked()
            assert won.get() == (winner or 0)
            assert won.empty()
            assert names(folder) == ["claim"]
            winners.add(winner)
        assert winners <= {None, 1, 2, 3}


def _contend(run_dirs: SharedRunDirs, folder: Path, job_id: int, start: Any, won: Any) -> None:
    """Take the claim as a job, or as the controller (0), and tell who believes to have it."""
    start.wait()
    if job_id == 0:
        run_dirs._revoke(folder)
        if read_job_files(folder).claim == Revoked():
            won.put(0)
        return
    try:
        claim.take(folder, job_id)
    except claim.ClaimLostError:
        return
    won.put(job_id)


PROBE_SPEC = ProbeSpec(engine="vllm", model="m", health=Health(path="/well"))


async def test_how_an_engine_is_probed_is_noted_for_terms_to_come(run_dirs: SharedRunDirs) -> None:
    folder = await run_dirs.prepare("one", TOKEN, b"{}", PROBE_SPEC)
    assert await run_dirs.launched("one", TOKEN) == PROBE_SPEC
    assert stat.S_IMODE((Path(folder.path) / "probe.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b'{"engine": 7}'])
async def test_a_note_that_is_absent_or_garbled_tells_nothing(
    run_dirs: SharedRunDirs, folder: Path, content: bytes | None
) -> None:
    if content is not None:
        (folder / "probe.json").write_bytes(content)
    assert await run_dirs.launched("one", TOKEN) is None


async def test_a_wrapper_is_quiet_only_if_it_is_one_that_gives_signs(run_dirs: SharedRunDirs, folder: Path) -> None:
    (folder / "state.json").write_text('{"step": "serving"}')
    assert (await read(run_dirs)).quiet_for is None
    report = Report(folder)
    report.step("serving")
    first = (await read(run_dirs)).quiet_for
    second = (await read(run_dirs)).quiet_for
    assert first == 0.0
    assert second is not None
    assert second > 0.0
    report.sign()
    assert (await read(run_dirs)).quiet_for == 0.0


async def test_a_verdict_may_be_as_old_as_the_last_look_at_the_sign_before(
    run_dirs: SharedRunDirs, folder: Path
) -> None:
    """A sign that is new to us may have been given long ago: whoever looks seldom does not know when."""
    report = Report(folder)
    report.health(controller.wrapper.report.HealthVerdict(ok=True, failures=0, message=""))
    await read(run_dirs)
    first = await run_dirs.verdict("one", TOKEN)
    assert first is not None
    assert first.age is None
    report.sign()
    await read(run_dirs)
    second = await run_dirs.verdict("one", TOKEN)
    assert second is not None
    assert second.age is not None
    assert second.age > 0.0


@pytest.mark.parametrize("name", ["claim", "state.json", "exit.json"])
def test_what_this_host_can_not_open_is_neither_absent_nor_garbled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A claim that somebody has would read as nobody's, or a verdict as none."""
    (folder / "claim").write_text('{"job_id": 7}')
    opened = os.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if Path(path).name == name:
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return opened(path, *args, **options)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Too many open files"):
        patched.setattr(os, "open", refuse)
        read_job_files(folder)
    assert read_job_files(folder).claim == Held(job_id=7)


async def test_without_descriptors_nothing_is_read(run_dirs: SharedRunDirs, folder: Path) -> None:
    await run_dirs.read("one", [TOKEN])  # the thread that reads is there
    with none_left():
        with pytest.raises(OSError, match="Too many open files"):
            await run_dirs.read("one", [TOKEN])
        with pytest.raises(OSError, match="Too many open files"):
            await run_dirs.verdict("one", TOKEN)
        with pytest.raises(OSError, match="Too many open files"):
            await run_dirs.launched("one", TOKEN)
    assert await read(run_dirs) == JobFiles()
