"""A page of anybody's, open while the platform or a `sagemaker_local` of one's own is up: nothing comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import boto3
import pytest
import requests

from tests.support.chromium import needs_chromium
from tests.support.local_service import LocalService
from tests.support.next_door import ATTACKS, GROUP, NextDoor, next_door, package_groups, traces

pytestmark = [pytest.mark.browser, needs_chromium]
KEPT = "kept-from-next-door"


@pytest.fixture(scope="module")
def evil() -> Iterator[NextDoor]:
    with next_door() as browser:
        yield browser


@pytest.fixture
def unharmed(ministack: str, sagemaker_local: str, aws: Callable[..., Any]) -> Iterator[None]:
    """What the test does leaves no trace: nothing came or went."""
    aws("s3").create_bucket(Bucket=KEPT)
    before = traces(aws)
    yield
    assert traces(aws) == before


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("service", ["ministack", "sagemaker_local"])
def test_the_platform_refuses(
    service: str,
    attack: Callable[[NextDoor, str], None],
    evil: NextDoor,
    unharmed: None,
    request: pytest.FixtureRequest,
) -> None:
    attack(evil, request.getfixturevalue(service))


def test_a_presigned_url_opens(evil: NextDoor, ministack: str, aws: Callable[..., Any], unharmed: None) -> None:
    """Which is what a link in a page of Airflow is."""
    aws("s3").put_object(Bucket=KEPT, Key="a b.txt", Body=b"content", ContentType="text/plain")
    url = aws("s3").generate_presigned_url("get_object", {"Bucket": KEPT, "Key": "a b.txt"})
    with evil.opened(url, ministack) as (tab, answers):
        assert answers == [f"GET /{KEPT}/{quote('a b.txt')} 200"]
        assert tab.inner_text("body") == "content"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a `sagemaker_local` with nothing else beside it, as one installed from its wheel."""
    image = {"pattern": "none", "command": ["false"]}
    account = {"SAGEMAKER_LOCAL_ACCOUNT_ID": "111122223333"}
    service = LocalService(tmp_path_factory.mktemp("alone"), "http://127.0.0.1:9", image, environment=account).start()
    yield service.url
    service.stop()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_sagemaker_local_refuses_it_on_its_own_too(
    attack: Callable[[NextDoor, str], None], evil: NextDoor, alone: str
) -> None:
    attack(evil, alone)
    assert package_groups(boto3.client("sagemaker", endpoint_url=alone)) == []


def test_what_the_pages_send_would_have_worked(alone: str) -> None:
    answer = requests.post(alone, data=GROUP["body"], headers=GROUP["headers"], timeout=30)
    assert answer.status_code == 200
    assert package_groups(boto3.client("sagemaker", endpoint_url=alone)) == ["evil"]
