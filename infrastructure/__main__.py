"""Command line: python -m infrastructure plan|deploy|destroy|outputs, to whatever AWS the environment points at."""

from __future__ import annotations

import argparse
import json
import os
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infrastructure import stack as stacks
from infrastructure.artifacts import DeploymentError
from infrastructure.deploy import STACK_NAME, Deployment


def parameter(text: str) -> tuple[str, str]:
    """Split `Name=value`; the value may be empty."""
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"expected Name=value, got {text!r}")
    return name, value


def arguments() -> argparse.ArgumentParser:
    """The command line's parser."""
    parser = argparse.ArgumentParser(prog="python -m infrastructure", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("plan", "show what deploy would change, and change nothing"),
        ("deploy", "create or update the stack; the plan is shown first"),
        ("destroy", "delete the stack; the data stays unless --delete-data"),
        ("outputs", "print the stack's outputs as JSON"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        default = os.environ.get("SCONES_STACK_NAME") or STACK_NAME
        command.add_argument("--stack-name", default=default, help="default: SCONES_STACK_NAME, else %(default)s")
        if name in {"plan", "deploy"}:
            command.add_argument(
                "--parameter",
                type=parameter,
                action="append",
                default=[],
                metavar="Name=value",
                help="template parameter, may be repeated; one given earlier is kept",
            )
            command.add_argument(
                "--tag",
                type=parameter,
                action="append",
                default=[],
                metavar="Key=value",
                help="tag of all resources, may be repeated; one given earlier is kept",
            )
        if name == "destroy":
            command.add_argument("--delete-data", action="store_true", help="empty and delete the data bucket too")
            command.add_argument("--leave-endpoint", action="store_true", help="go on though the endpoint still exists")
    return parser


def run(options: argparse.Namespace) -> None:
    """Carry out one command."""
    tags = dict(getattr(options, "tag", ()))
    deployment = Deployment(boto3.Session(), options.stack_name, print, tags)
    if options.command == "plan":
        deployment.plan(dict(options.parameter))
    elif options.command == "deploy":
        print(json.dumps(deployment.deploy(dict(options.parameter)), indent=2))
    elif options.command == "destroy":
        deployment.destroy(options.delete_data, options.leave_endpoint)
    else:
        stack = stacks.describe(deployment.cloudformation, options.stack_name)
        if stack is None:
            raise DeploymentError(f"There is no stack {options.stack_name!r} in {deployment.region}; deploy it first")
        print(json.dumps(stacks.outputs(stack), indent=2))


def main(argv: list[str] | None = None) -> int:
    """Entry point. Returns the exit code: 0, or 1 with the reason on standard error."""
    options = arguments().parse_args(argv)
    try:
        run(options)
    except (DeploymentError, ClientError, BotoCoreError) as error:
        print(f"{options.command} of stack {options.stack_name!r} failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
