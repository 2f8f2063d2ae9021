"""What an environment of Amazon MWAA reads from its bucket, in a folder: python -m infrastructure.mwaa_files FOLDER."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from infrastructure.artifacts import ROOT, pack
from infrastructure.deploy import STACK_NAME

OURS = ROOT / "infrastructure" / "mwaa"
# Where MWAA keeps the bucket's dags/. Constraints from there need no internet, and are the versions that were tested.
CONSTRAINTS = "/usr/local/airflow/dags/constraints.txt"


def write(folder: Path, stack_name: str) -> None:
    """Write dags/, plugins.zip, requirements.txt, startup.sh and the environment's template; what was there goes.

    Args:
        stack_name: the stack of `make deploy` whose resources the DAGs use.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "dags", folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(OURS / "constraints.txt", folder / "dags")
    plugins = ROOT / "plugins"
    sources = sorted(path for path in plugins.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    (folder / "plugins.zip").write_bytes(pack(sources, plugins))
    wanted = (OURS / "requirements.in").read_text()
    (folder / "requirements.txt").write_text(f'--constraint "{CONSTRAINTS}"\n{wanted}')
    startup = (OURS / "startup.sh").read_text()
    (folder / "startup.sh").write_text(startup.replace("@STACK_NAME@", stack_name))
    shutil.copy(OURS / "template.yaml", folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    write(options.folder, os.environ.get("SCONES_STACK_NAME") or STACK_NAME)
    print(f"Wrote {options.folder}: docs/aws.md says what to do with it.")
