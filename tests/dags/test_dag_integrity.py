"""What holds for every DAG file: it loads, it is light, it documents itself, it serialises the same every time."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scones.aws.conf import UnknownParamError
from scones.notifications import DAG_DEFAULT_ARGS, AwsRetryPolicy
from tests.support.dag_files import DAG_FILES, DAG_IDS, ROOT, load

HEAVY = ("numpy", "pandas", "PIL", "sagemaker", "pyarrow", "scipy", "sklearn", "skimage", "matplotlib", "aiobotocore")
MOST_LINES = 150
POOLS = {"default_pool", *json.loads((ROOT / "plugins" / "scones" / "pools.json").read_text())}


def dag_environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'plugins'}{os.pathsep}{ROOT}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def test_there_is_a_dag_in_every_file_named_as_the_file() -> None:
    assert {"train_and_deploy", "rollback_endpoint", "cleanup"} <= set(DAG_IDS)
    for dag_id in DAG_IDS:
        assert load(dag_id).dag_id == dag_id


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.stem)
def test_a_dag_file_is_a_short_table_of_contents(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "the first statement must be the run book"


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_a_dag_documents_itself_and_keeps_the_house_rules(dag_id: str) -> None:
    from scones import defaults

    dag = load(dag_id)
    assert dag.doc_md
    assert len(dag.doc_md) > 200
    assert set(defaults.TAGS) <= set(dag.tags)
    assert dag.catchup is False
    assert dag.start_date is None, "unpausing must not run the latest missed interval: docs/decisions/0004"
    assert dag.on_failure_callback
    assert dag.default_args["owner"] == DAG_DEFAULT_ARGS["owner"]
    for task in dag.tasks:
        waits_for_people = "approve" in task.task_id
        assert waits_for_people or task.execution_timeout, f"{task.task_id} may run for ever"
        assert task.pool in POOLS


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_params_are_flat_typed_and_explain_themselves(dag_id: str) -> None:
    params = load(dag_id).params
    for name in params:
        param = params.get_param(name)
        schema = param.schema
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert "object" not in kinds, f"{name}: the form cannot edit objects"
        if "array" in kinds:
            assert schema["items"]["type"] == "string", f"{name}: the form edits arrays of strings only"
        assert schema.get("section"), f"{name} is in no section"
        assert schema.get("title"), f"{name} has no title"
        assert param.description, f"{name}: say what it does"
        # The default is valid, or this raises: a run triggered without a form gets it.
        assert param.resolve() == param.value


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_the_form_shows_its_first_section_open(dag_id: str) -> None:
    from scones import defaults

    params = load(dag_id).params
    sections = [params.get_param(name).schema["section"] for name in params]
    assert sections[0] == defaults.OPEN_SECTION


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_no_backfill_is_offered(dag_id: str) -> None:
    """No run here has a day of its own to make up for."""
    dag = load(dag_id)
    assert not dag.timetable.can_be_scheduled or "backfill" not in {one.value for one in dag.allowed_run_types}


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_the_trigger_form_can_be_sent_with_the_defaults(dag_id: str) -> None:
    params = load(dag_id).params
    for name in params:
        param = params.get_param(name)
        if param.value in ("", [], None):
            # The form takes an empty value for missing, and disables its button, unless null is allowed.
            assert "null" in param.schema["type"], name


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_no_template_needs_a_logical_date(dag_id: str) -> None:
    text = (ROOT / "dags" / f"{dag_id}.py").read_text()
    for macro in ("{{ ds", "{{ ts", "logical_date", "data_interval"):
        assert macro not in text, f"{macro} is undefined in a run triggered over the API"


_PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
bag = DagBag(dag_folder=sys.argv[1])
assert not bag.import_errors, bag.import_errors
heavy = [name for name in sys.argv[2].split(",") if name in sys.modules]
dags = {dag_id: DagSerialization.to_dict(dag) for dag_id, dag in bag.dags.items()}
print(json.dumps({"heavy": heavy, "dags": dags}, sort_keys=True))
"""


def parse_all(home: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _PARSE, str(ROOT / "dags"), ",".join(HEAVY)],
        env=dag_environment(home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_parsing_imports_nothing_heavy_and_serialises_the_same_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a fresh process and in this one, each with an order of its own in its sets."""
    from airflow.serialization.serialized_objects import DagSerialization

    monkeypatch.setattr("airflow.serialization.serialized_objects.DAGS_FOLDER", str(ROOT / "dags"))
    fresh = parse_all(tmp_path)
    assert fresh["heavy"] == []
    assert set(fresh["dags"]) == set(DAG_IDS)
    here = json.loads(json.dumps({dag_id: DagSerialization.to_dict(load(dag_id)) for dag_id in DAG_IDS}))
    assert fresh["dags"] == here, "a changing serialisation makes a new DAG version at every parse"


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_every_number_of_the_form_has_both_its_bounds(dag_id: str) -> None:
    params = load(dag_id).params
    for name in params:
        schema = params.get_param(name).schema
        if "enum" not in schema and {"integer", "number"} & set(
            schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        ):
            assert {"minimum", "exclusiveMinimum"} & set(schema), name
            assert {"maximum", "exclusiveMaximum"} & set(schema), name


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_the_first_task_refuses_what_is_no_param(dag_id: str) -> None:
    [first] = load(dag_id).roots
    assert first.retry_policy is not None
    run = SimpleNamespace(conf={"nonsense": 1})
    with pytest.raises(UnknownParamError, match="no param 'nonsense'"):
        first.python_callable(dag=load(dag_id), dag_run=run)


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_every_task_follows_the_retry_policy_for_aws(dag_id: str) -> None:
    for task in load(dag_id).tasks:
        assert "approve" in task.task_id or isinstance(task.retry_policy, AwsRetryPolicy), task.task_id
