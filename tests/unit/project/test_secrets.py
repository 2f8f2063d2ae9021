"""Nothing secret, and nothing of one machine or one account, is in the files that git knows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# AWS's documentation uses this number for accounts that do not exist.
EXAMPLE_ACCOUNT = "1111" + "22223333"
RULES = {
    "AWS access key id": re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}\b"),
    "AWS secret key": re.compile(r"(?i)aws_?secret_?access_?key\W{1,6}[A-Za-z0-9/+]{40}\b"),
    "private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|xox[abprs]-[A-Za-z0-9-]{10,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.)"),
    "Fernet key or other 32 bytes in base64": re.compile(r"(?<![\w/+-])[A-Za-z0-9_/+-]{43}=(?![\w=])"),
    "password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@${}\"']+:[^\s/:@${}\"']+@[\w.-]+"),
    "account number": re.compile(
        rf"(?<![\w.:-])(?!{EXAMPLE_ACCOUNT})\d{{12}}(?![\w.])|:(?!{EXAMPLE_ACCOUNT})\d{{12}}:"
    ),
    "home folder of a machine": re.compile(
        r"(?<![\w.])/(?:home|Users)/[a-z][\w-]*|(?<![\w.])/root/(?!\.cache/uv)[\w.-]+"
    ),
    "host name of a registry": re.compile(
        r"\b\d+\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com|\b(?:ghcr|quay|docker|registry\.\w+)\.io/|\bgcr\.io/|"
        r"--(?:extra-)?index-url|://(?!pypi\.org)[\w.-]*(?:pypi|artifactory|nexus)[\w.-]*/"
    ),
}
LOCK = re.compile(r"requirements[\w-]*\.txt")
HASH_LINE = re.compile(r"(?m)^\s+--hash=sha256:[0-9a-f]{64}( \\)?$")


def files_of_git() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no git checkout, so there is no list of its files")
    return [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]


def findings(text: str) -> list[str]:
    """What the rules see in a text: `rule: the match`."""
    return [f"{rule}: {match.group()[:60]}" for rule, pattern in RULES.items() for match in pattern.finditer(text)]


def test_no_file_of_the_repository_holds_a_secret():
    problems = []
    for path in files_of_git():
        if not path.is_file():
            continue  # deleted, not yet committed
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue  # an image, say
        text = content.decode("utf-8", "replace")
        if LOCK.fullmatch(path.name):
            text = HASH_LINE.sub("", text)
        problems += [f"{path.relative_to(ROOT)}: {finding}" for finding in findings(text)]
    assert not problems, "\n".join(problems)


def test_env_is_never_for_git():
    names = [str(path.relative_to(ROOT)) for path in files_of_git()]
    assert ".env" not in names
    assert not [name for name in names if name.endswith((".pem", ".key", ".p12", ".pkl", ".pickle"))]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("AWS access key id", "AKIA" + "ABCDEFGHIJKLMNOP"),
        ("AWS secret key", 'aws_secret_access_key = "' + "a/B3" * 10 + '"'),
        ("private key", "-----BEGIN RSA " + "PRIVATE KEY-----"),
        ("token", "ghp_" + "a1" * 18),
        ("Fernet key or other 32 bytes in base64", "KEY=" + "aB3" * 14 + "x="),
        ("password in a URL", "postgresql://scones:" + "hunter2@postgres/airflow"),
        ("account number", "arn:aws:iam::" + "4815" * 3 + ":role/r"),
        ("account number", "account = " + "4815" * 3),
        ("home folder of a machine", "/home" + "/alice/project"),
        ("host name of a registry", "4815" * 3 + ".dkr.ecr." + "eu-central-1.amazonaws.com/x"),
        ("host name of a registry", "https://" + "pypi.example.com/simple"),
    ],
)
def test_each_rule_finds_what_it_is_for(rule: str, text: str):
    assert rule in {finding.split(": ")[0] for finding in findings(text)}


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg2://scones:${POSTGRES_PASSWORD}@postgres/airflow",
        f"arn:aws:iam::{EXAMPLE_ACCOUNT}:role/r",
        "/opt/scones/dags",
        "https://pypi.org/simple",
    ],
)
def test_harmless_text_is_not_reported(text: str):
    assert findings(text) == []
