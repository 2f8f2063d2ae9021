"""Options out of a form: every kind of param, what is refused and how that is said."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import Param

from cli.commands import EXIT_CODES, exit_code
from cli.options import Parser, UsageError, add_form, parse

FORM = {
    "classes": Param(["a", "b"], type="array", items={"type": "string", "minLength": 1}, minItems=2, section="Data"),
    "mini_batch_size": Param(32, type="integer", minimum=1, section="Training", description="Images (100 % of them)"),
    "layers": Param(18, type="integer", enum=[18, 34], section="Training"),
    "share": Param(0.5, type="number", exclusiveMinimum=0, maximum=1, section="Training"),
    "threshold": Param(None, type=["null", "number"], minimum=0, section="Training"),
    "strategy": Param("all", type="string", enum=["all", "canary"], section="Training"),
    "prefix": Param("", type=["null", "string"], section="Data"),
    "dry_run": Param(True, type="boolean", section="Data"),
}


def conf(words: str) -> dict[str, Any]:
    parser = Parser(prog="scones train")
    add_form(parser, FORM)
    return parse(parser, words.split(), FORM)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {}),
        ("--classes bear wolf cattle", {"classes": ["bear", "wolf", "cattle"]}),
        ("--mini-batch-size 8 --layers=34", {"mini_batch_size": 8, "layers": 34}),
        ("--share 0.25 --threshold 1", {"share": 0.25, "threshold": 1.0}),
        ("--strategy canary --prefix photos/", {"strategy": "canary", "prefix": "photos/"}),
        ("--no-dry-run", {"dry_run": False}),
        ("--dry-run", {"dry_run": True}),
    ],
)
def test_what_is_given_is_read_and_nothing_else(words: str, expected: dict[str, Any]) -> None:
    assert conf(words) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--mini-batch 8", "unrecognized option --mini-batch: did you mean --mini-batch-size?"),
        ("--colour red", "unrecognized option --colour: --help shows what there is"),
        ("bear", "unrecognized argument: bear"),
        ("--mini-batch-size many", "argument --mini-batch-size: invalid int value: 'many'"),
        ("--mini-batch-size 0", "argument --mini-batch-size: 0 is less than the minimum of 1"),
        ("--layers 19", ("argument --layers: invalid choice: 19", "argument --layers: invalid choice: '19'")),
        ("--share nan", "argument --share: not a number"),
        ("--share 2", "argument --share: 2.0 is greater than the maximum of 1"),
        ("--classes bear", "argument --classes: ['bear'] is too short"),
        ("--strategy linear", "argument --strategy: invalid choice: 'linear'"),
    ],
)
def test_what_the_form_would_not_take_is_refused_by_name(words: str, said: str | tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as refused:
        conf(words)
    assert str(refused.value).startswith(said)


def test_the_help_shows_the_form() -> None:
    parser = Parser(prog="scones train")
    add_form(parser, FORM)
    text = " ".join(parser.format_help().split())
    assert "--mini-batch-size N Images (100 % of them) Default: 32." in text
    assert "--dry-run, --no-dry-run Default: yes." in text
    assert "Data:" in text


@pytest.mark.parametrize(
    ("state", "tasks", "code", "meaning"),
    [
        ("success", {"goal": "success", "other": "skipped"}, 0, "success"),
        ("failed", {"goal": "upstream_failed"}, 1, "a task failed"),
        ("failed", {"goal": "success", "after": "failed"}, 1, "a task failed"),
        ("success", {"goal": "skipped"}, 4, "refused"),
        ("failed", {"goal": "skipped", "refuse_model": "failed"}, 4, "refused"),
        ("running", {"goal": "running"}, 1, "a task failed"),
        ("", {}, 1, "a task failed"),
    ],
)
def test_the_exit_code_says_what_came_of_it(state: str, tasks: dict[str, str], code: int, meaning: str) -> None:
    assert exit_code("goal", state, tasks) == code
    assert EXIT_CODES[code].partition(":")[0] == meaning
