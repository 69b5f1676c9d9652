"""``python cli.py fit --model IFMMIN``: the command line of :mod:`ifmmin.cli`."""

import os
import signal
from types import FrameType


def stop(signum: int, frame: FrameType | None) -> None:
    """End before anything was begun: ifmmin, whose import takes a moment, handles signals later."""
    os.write(2, b"stopped; nothing was begun\n")
    os._exit(128 + signum)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background job
            signal.signal(number, stop)

    from ifmmin.cli import main

    raise SystemExit(main())
