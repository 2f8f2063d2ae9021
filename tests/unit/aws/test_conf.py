"""A run's conf against the params of its DAG."""

from __future__ import annotations

from typing import Any

import pytest

from scones.aws.conf import UnknownParamError, check_conf

PARAMS = ("prefix", "minimum_accuracy", "keys")


@pytest.mark.parametrize("conf", [None, {}, {"prefix": "a/", "minimum_accuracy": 0.9, "keys": None}])
def test_what_the_dag_knows_passes(conf: dict[str, Any] | None) -> None:
    check_conf(conf, PARAMS)


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"prefixx": "photos/"}, "no param 'prefixx'. Did you mean 'prefix'?"),
        ({"minimum_acuracy": 0.99}, "Did you mean 'minimum_accuracy'?"),
        ({"nonsense": 1}, "The params are keys, minimum_accuracy, prefix."),
        ({"minimum_accuracy": float("nan")}, "'minimum_accuracy' is nan"),
    ],
)
def test_what_would_be_passed_over_is_refused(conf: dict[str, Any], words: str) -> None:
    with pytest.raises(UnknownParamError) as refused:
        check_conf(conf, PARAMS)
    assert words in str(refused.value)
