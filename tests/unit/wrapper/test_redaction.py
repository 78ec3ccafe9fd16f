from __future__ import annotations

import pytest

from controller.wrapper.redaction import Redaction

from .jobs import Job

PEM = "-----BEGIN KEY-----\nMIIBVgIBADANBgkq\r\n  hkiG9w0BAQEFAASC \nab\n-----END KEY-----\n"


@pytest.mark.parametrize(
    ("secret", "text", "told"),
    [
        ("5ec2e7", "KeyError: '5ec2e7'!", "KeyError: '***'!"),
        ("5", "5 of 15", "*** of 1***"),
        (PEM, "cannot read MIIBVgIBADANBgkq", "cannot read ***"),
        (PEM, "a\n  hkiG9w0BAQEFAASC \nb", "a\n  *** \nb"),
        (PEM, "ab is too short to hide", "ab is too short to hide"),
        (PEM, f"it is {PEM}", "it is ***"),
        ("caf\udce9-key", "no caf\ufffd-key here", "no *** here"),
        ("", "all stays", "all stays"),
    ],
)
def test_secrets_are_blotted_out_whole_and_by_the_line(secret: str, text: str, told: str) -> None:
    assert Redaction([secret])(text) == told


def test_the_longest_goes_first() -> None:
    assert Redaction(["abcd", "abcdefgh"])("abcdefgh abcd") == "*** ***"


@pytest.mark.parametrize("line", [0, 1, 2])
def test_no_line_of_a_secret_reaches_the_exit_record(job: Job, python: str, line: int) -> None:
    secret = "first-line-0001\nsecond-line-0002\nthird-line-0003"
    code = f"import os; raise ValueError('x' * 590 + os.environ['KEY'].splitlines()[{line}])"
    job.run_command(python, "-c", code, secret=secret, secret_variable="KEY")
    assert "line-000" not in job.exit["message"]
    assert "-line" not in job.exit["message"], "nor does a part of it, where the message is cut"


def test_bytes_that_are_no_text_are_hidden_too(job: Job, python: str) -> None:
    secrets = job.folder.parent / "secret"
    secrets.write_bytes(b"caf\xe9-5ec2e7\nsecond \xff line\n")
    secrets.chmod(0o600)
    code = "import os; os.write(2, b'ValueError: ' + os.environb[b'KEY'].replace(b'\\n', b' '))\nraise SystemExit(1)"
    job.run_command(python, "-c", code, environment_from={"KEY": str(secrets)})
    assert job.exit["message"] == "ValueError: *** ***"
