"""``python cli.py fit --model IFMMIN``: the command line of :mod:`ifmmin.cli`."""

from ifmmin.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
