"""``python -m embedded run|up|down|status``: the whole platform on this machine. See `make help`."""

from __future__ import annotations

import argparse
import sys
import time

from embedded import control, environment, run_folder, supervisor
from embedded.settings import EmbeddedSettings, SettingsError, is_loopback, load


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m embedded", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="bring all up, run the DAGs once, print what happened, end all")
    commands.add_parser("up", help="bring all up and leave it up")
    commands.add_parser("down", help="end all; data stays in the run folder")
    commands.add_parser("status", help="say what runs and where")
    commands.add_parser("aws-env", help="print what a shell needs for the AWS CLI and notebooks")
    supervise = commands.add_parser("supervise", help="(internal) the process that keeps the others up")
    supervise.add_argument("--owner-pid", type=int)
    supervise.add_argument("--move-ports", action="store_true")
    arguments = parser.parse_args()
    try:
        settings = load()
        environment.enter(settings)
        if arguments.command == "supervise":
            return supervisor.main(settings, arguments.owner_pid, arguments.move_ports)
        commands_by_name = {"run": _run, "up": _up, "down": _down, "status": _status, "aws-env": _aws_env}
        return commands_by_name[arguments.command](settings)
    except (SettingsError, control.PlatformError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(settings: EmbeddedSettings) -> int:
    from rich.console import Console

    from embedded import run
    from embedded.airflow_api import AirflowApiError

    console = Console(width=None if sys.stdout.isatty() else 140)
    began = time.monotonic()
    is_up = run_folder.read_state(settings.run_dir) is not None
    console.print("Using the platform that is up" if is_up else f"Bringing the platform up (logs: {settings.logs_dir})")
    ours = False
    try:
        actual, ours = control.start(settings, owned=True)
        console.print(f"Up after {time.monotonic() - began:.1f} s: Airflow at {actual.airflow_url}\n")
        _print_notes(settings)
        job = run.OneCommandRun(actual, console, ours)
        try:
            document = job.run()
        except (run.RunFailedError, AirflowApiError) as error:
            console.print(f"\n{error}", style="bold red", markup=False, highlight=False)
            return 1
        document["seconds"] = round(time.monotonic() - began, 1)
        console.print()
        run.show(console, job, document)
        path = run.write_summary(settings, document)
        for label, address in (
            ("Monitoring report", document["addresses"]["report_html"]),
            ("Batch report", document["addresses"]["batch_html"]),
            ("Evaluation", document["addresses"]["evaluation_html"]),
            ("Summary", path),
            ("Airflow UI", f"{actual.airflow_url} ({'`make up` starts it' if ours else 'up'}; login {actual.user})"),
        ):
            console.print(f"{label:<18} {address}", soft_wrap=True, highlight=False)
        console.print(f"{'Took':<18} {document['seconds']} s", highlight=False)
        return 0
    finally:
        # What somebody else has brought up stays up.
        if ours:
            control.stop(settings)


def _up(settings: EmbeddedSettings) -> int:
    actual, _ = control.start(settings, owned=False)
    _print_notes(settings)
    print(f"Airflow UI    {actual.airflow_url}")
    known = "admin / admin" if (actual.user, actual.password) == ("admin", "admin") else "as set in SCONES_ADMIN_*"
    print(f"Login         {known}{'' if is_loopback(actual.host) else ' (reachable from other machines)'}")
    print(f"AWS APIs      {actual.aws_url}  (S3, Lambda, Step Functions, SNS, CloudWatch, ...)")
    print(f"SageMaker     {actual.sagemaker_url}")
    print("End it with   make down")
    return 0


def _down(settings: EmbeddedSettings) -> int:
    ended = control.stop(settings)
    print("Ended." if ended else "Nothing was running.")
    return 0


def _status(settings: EmbeddedSettings) -> int:
    state = run_folder.read_state(settings.run_dir)
    if state is None:
        print("Not running. `make up` starts it.")
        return 3
    print(f"Running: Airflow {state['airflow_url']}, AWS APIs {state['aws_url']}, SageMaker {state['sagemaker_url']}")
    for name, pid in state["processes"].items():
        print(f"  {name:<24} pid {pid}")
    return 0


def _print_notes(settings: EmbeddedSettings) -> None:
    state = run_folder.read_state(settings.run_dir) or {}
    for note in state.get("notes", []):
        print(f"Note: {note}")
    if state.get("owned"):
        print("It belongs to a `make run`, and ends with it")


def _aws_env(settings: EmbeddedSettings) -> int:
    state = run_folder.read_state(settings.run_dir)
    for line in environment.shell_lines(supervisor.applied(settings, state) if state else settings):
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
