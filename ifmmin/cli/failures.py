"""How a command fails: one printable line on standard error, and an exit code."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable

from datamodules.errors import InputError
from datamodules.text import printable

DEBUG = "IFMMIN_DEBUG"
"""Set to 1 in the environment, it shows where an error was raised."""

BROKEN_PIPE = 141
"""Exit code of a program whose reader has gone: 128 + SIGPIPE, as the shell has it."""

_LONGEST = 1000

_NO_REASONS = ("Import path ", "Expected a ", "Problem with given class", "Not a valid subclass of ")


def reported(command: Callable[[], int]) -> int:
    """Run ``command``.

    Returns:
        its exit code; or 1 after one line that says what is wrong; or 141 if the reader of what it prints has gone.
    """
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _let_go_of_stdout()
        return BROKEN_PIPE
    except Exception as error:
        if os.environ.get(DEBUG, "0") not in ("", "0"):
            traceback.print_exc()
        return _complain(explained(error))


def explained(error: Exception) -> str:
    """What is wrong, in a sentence or two, and what to do."""
    if cause := input_error_in(error):
        return _in_worker(str(cause)) or str(cause)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else "standard output: " if _while_printing(error) else ""
        return f"{place}{error.strerror or error}; see that the path is right and that there is space."
    advice = f"{DEBUG}=1 shows where."
    text = _text_of(error)
    if isinstance(error, MemoryError):
        return f"not enough memory{_of(error)}; {advice}"
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:  # PyTorch's
        return "not enough memory; give a smaller --data.batch_size or --data.eval_batch_size, or a smaller model."
    if line := _not_made(text):
        return line
    if re.match(r"DataLoader worker \(pid.*\) (is killed|exited unexpectedly)", text):
        return "a process that prepares batches was killed, perhaps for want of memory; give fewer --data.workers."
    # Lightning's word for an option that does not fit the machine or the others.
    kind = "trainer" if type(error).__name__ == "MisconfigurationException" else type(error).__name__
    return f"{kind}{_of(error)}; {advice}"


def _in_worker(message: str) -> str | None:
    """What a process that prepares batches raised, of PyTorch's account of it with its traceback."""
    if not re.match(r"Caught \w+ in DataLoader worker process", message):
        return None
    raised = [line for line in message.splitlines() if re.match(r"[\w.]+Error: ", line)]
    return raised[-1].partition(": ")[2] if raised else None


def _while_printing(error: OSError) -> bool:
    """Whether an error came from printing; what is still to be flushed is then dropped."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not ("print(" in (frames[-1].line or "") or "/rich/" in frames[-1].filename):
        return False
    _let_go_of_stdout()
    return True


def _not_made(message: str) -> str | None:
    """Why a class given as an option could not be made, from jsonargparse's list of what it might have been."""
    found = re.search(r"^Given value: \[?Namespace\(class_path='(?:\w+\.)*(\w+)'", message, re.M)
    if found is None or "Does not validate against any of the Union subtypes" not in message:
        return None
    lines = [line.strip(" -") for line in message.partition("Errors:\n")[2].splitlines() if line.startswith("  ")]
    reasons = [line for line in lines if not line.startswith(_NO_REASONS)]
    return f"{found[1]}: cannot be made ({printable(reasons[0], 300)})." if reasons else None


def input_error_in(error: BaseException | None) -> InputError | None:
    """Find the InputError that caused ``error``; jsonargparse wraps what classes raise."""
    while error is not None:
        if isinstance(error, InputError):
            return error
        error = error.__cause__ or error.__context__
    return None


def first_sentence(text: str) -> str:
    r"""The first sentence of a message, without its stop; a line ends one, unless it ends with a colon.

    >>> first_sentence("No supported gpu backend found! Try again.")
    'No supported gpu backend found'
    >>> first_sentence("invalid device:\n  - 3.5\nsee the docs")
    'invalid device: - 3.5'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[0] if lines else ""
    if line.endswith(":") and len(lines) > 1:
        line = f"{line} {lines[1]}"
    return re.split(r"(?<=[^.])[.!?](?=\s+[A-Z`'\"(]|\s*$)", line)[0].strip()


def _text_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # its __str__ fails too
        return ""


def _of(error: Exception) -> str:
    sentence = printable(first_sentence(_text_of(error)), 400)
    return f": {sentence}" if sentence else ""


def _complain(line: str) -> int:
    print(f"error: {printable(line, _LONGEST)}", file=sys.stderr)
    return 1


def _let_go_of_stdout() -> None:
    """Have what is still to be flushed go nowhere, or Python reports the broken pipe once more as it ends."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
