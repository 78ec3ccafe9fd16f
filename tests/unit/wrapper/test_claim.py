from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from controller.wrapper.locks import claim


def contend(folder: Path, job_id: int, start: object, won: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    try:
        claim.take(folder, job_id)
    except claim.ClaimLostError:
        return
    won.put(job_id)  # type: ignore[attr-defined]


def holder(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "claim").read_text())
    return content


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_takes_a_free_claim(tmp_path: Path) -> None:
    claim.take(tmp_path, 7)
    assert holder(tmp_path)["job_id"] == 7
    assert holder(tmp_path)["restarts"] == 0
    assert leftovers(tmp_path) == ["claim"]


def test_a_second_run_of_the_same_job_goes_away(tmp_path: Path) -> None:
    """A slurmctld that has lost its latest state starts on another node what runs already."""
    claim.take(tmp_path, 7)
    first = holder(tmp_path)
    with pytest.raises(claim.ClaimLostError, match="held by job 7"):
        claim.take(tmp_path, 7)
    assert (holder(tmp_path), leftovers(tmp_path)) == (first, ["claim"])


def test_a_claim_that_reads_as_our_own_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS may say that the link exists already, and still count one name of the file."""
    link = os.link

    def lost_answer(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", lost_answer)
    monkeypatch.setattr(claim, "is_linked", lambda _: False)
    claim.take(tmp_path, 7)
    assert holder(tmp_path)["job_id"] == 7


def test_of_many_at_once_exactly_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for round_ in range(5):
        folder = tmp_path / str(round_)
        folder.mkdir()
        start, won = context.Event(), context.SimpleQueue()
        contenders = [context.Process(target=contend, args=(folder, number, start, won)) for number in range(1, 13)]
        for contender in contenders:
            contender.start()
        start.set()
        for contender in contenders:
            contender.join(10)
        winner = won.get()
        assert won.empty()
        assert holder(folder)["job_id"] == winner
        assert leftovers(folder) == ["claim"]


@pytest.mark.parametrize(
    "content",
    [
        '{"revoked":true}',
        "",
        "{",
        "null",
        "[]",
        '{"job_id":8,"restarts":0}',
        '{"job_id":7,"restarts":1}',
        '{"job_id":null}',
        '"x"',
    ],
)
def test_whatever_is_not_ours_is_lost(tmp_path: Path, content: str) -> None:
    (tmp_path / "claim").write_text(content)
    with pytest.raises(claim.ClaimLostError):
        claim.take(tmp_path, 7)
    assert (tmp_path / "claim").read_text() == content
    assert leftovers(tmp_path) == ["claim"]


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO, errno.ETIMEDOUT])
def test_a_link_that_failed_after_it_succeeded_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    link = os.link

    def lost_answer(source: Path, target: Path) -> None:
        link(source, target)
        raise OSError(number, "the answer was lost")

    monkeypatch.setattr(os, "link", lost_answer)
    claim.take(tmp_path, 7)
    assert holder(tmp_path)["job_id"] == 7
    assert leftovers(tmp_path) == ["claim"]


def test_a_link_that_succeeded_counts_even_if_it_cannot_be_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def lost_answer(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", lost_answer)
    monkeypatch.setattr(claim, "_owner", lambda _: None)
    claim.take(tmp_path, 7)
    assert holder(tmp_path)["job_id"] == 7


def test_an_error_with_another_holder_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim.take(tmp_path, 8)

    def fails(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "link", fails)
    with pytest.raises(claim.ClaimLostError):
        claim.take(tmp_path, 7)


def test_an_error_without_a_holder_claims_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", fails)
    with pytest.raises(claim.NoClaimError, match="no hard links here"):
        claim.take(tmp_path, 7)
    assert leftovers(tmp_path) == []


def test_a_missing_folder_claims_nothing(tmp_path: Path) -> None:
    with pytest.raises(claim.NoClaimError):
        claim.take(tmp_path / "absent", 7)
