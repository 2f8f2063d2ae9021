"""The command line `scones`: the DAGs' own code, run in one process without a scheduler. See docs/cli.md."""
