"""`python -m dydiff_env`: the same program as `dydiff-env`, for launchers that start a module."""

from dydiff_env.cli.app import main

main()
