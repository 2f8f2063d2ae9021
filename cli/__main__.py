"""Run a part of the project, here and now, without a scheduler. `scones COMMAND --help` lists a command's options."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

from cli import commands, options
from cli import target as targets
from cli.output import Output
from embedded import services
from embedded.settings import SettingsError, load


def main(words: Sequence[str]) -> int:
    """Run one command; return its exit code."""
    if not words or words[0] not in commands.COMMANDS:
        return _overview(words)
    name = words[0]
    output = Output.taken("--json" in words, bool({"-v", "--verbose"} & set(words)))
    try:
        return _command(name, words[1:], output)
    except (options.UsageError, SettingsError) as error:
        return output.refused(name, commands.WRONG_USAGE, str(error))
    except Exception as error:  # noqa: BLE001 - whatever broke, a program waits for its document, and people for a word
        traceback.print_exc()  # into the log
        return output.refused(name, commands.FAILED, str(error) or type(error).__name__)


def _overview(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scones",
        usage="scones COMMAND [options]",
        description=__doc__,
        epilog="\n".join(["exit codes:", *(f"  {code:<19} {text}" for code, text in commands.EXIT_CODES.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in commands.COMMANDS.items():
        listed.add_parser(name, help=command.help)
    parser.parse_args(words)  # leaves, with help or with what is wrong
    return commands.WRONG_USAGE


def _command(name: str, words: Sequence[str], output: Output) -> int:
    target = targets.find(load(), os.environ)
    os.environ.clear()
    os.environ.update(target.variables)
    from cli import execution  # Airflow reads the environment now
    from cli.session import Session

    command = commands.COMMANDS[name]
    dag = execution.load(command.dag_id)
    parser = options.Parser(prog=f"scones {name}", usage=f"scones {name} [options]", description=command.help)
    parser.add_argument("--json", action="store_true", help="standard output is one JSON document, nothing else")
    parser.add_argument("-v", "--verbose", action="store_true", help="the tasks' logs on standard error, not in a file")
    params = dict(dag.params.items())
    options.add_form(parser, params)
    with contextlib.redirect_stdout(output.out):
        conf = options.parse(parser, words, params)
    if target.problem:
        return output.refused(name, commands.NOTHING_THERE, target.problem)
    services.migrate(target.own)
    return Session(name, target, execution.Run(dag, command.tasks, conf), output).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
