"""``python -m ifmmin``: the command line."""

from ifmmin.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
