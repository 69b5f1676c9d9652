"""Write a checkpoint as an ONNX network, normalisation inside, and compare it with the predictor."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from datamodules.errors import InputError
from datamodules.files import expanded
from datamodules.text import printable
from ifmmin.cli.arguments import Parser
from ifmmin.cli.console import print_table
from ifmmin.export import TOLERANCE, Exported, export_checkpoint
from ifmmin.sharing.hub import stored_at


def export_command(argv: Sequence[str]) -> int:
    """Export a checkpoint and print how the network agrees with the model.

    Args:
        argv: the words after ``export``.

    Returns:
        exit code, 0.

    Raises:
        InputError: the checkpoint cannot be read, the model cannot be exported, or the network answers otherwise.
        OSError: the network cannot be written.
    """
    parser = Parser(prog="export", description=__doc__)
    parser.add_argument("checkpoint", type=str, help="A .ckpt file that fit wrote, or a saved model.")
    parser.add_argument("network", type=str, help="File to write, .onnx.")
    options = parser.parse_args(list(argv))
    checkpoint, network = stored_at(options.checkpoint), expanded(options.network)
    if network.suffix.lower() != ".onnx":
        raise InputError(f"{printable(network)}: networks are written as .onnx; give a name that ends in it.")
    if network.exists():
        raise InputError(f"{printable(network)}: exists already; give another name, or move it away.")
    exported = export_checkpoint(checkpoint, network)
    print_table(export_table(exported))
    print(f"written: {printable(exported.path)}")
    return 0


def export_table(exported: Exported) -> Table:
    """Make the table of what was written and how it compares."""
    found = exported.comparison
    table = Table(title=Text(f"{printable(exported.model)} as ONNX"), title_justify="left", show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("value", no_wrap=True)
    where = f"{{{','.join(found.condition)}}}, lengths {', '.join(map(str, found.frames))}"
    for name, value in (
        ("answers compared", f"{found.answers}, seven conditions, lengths 1 to 300"),
        ("largest difference", f"{found.difference:.1e} of at most {TOLERANCE:.0e} ({where})"),
        ("size", f"{exported.megabytes:.2f} MB"),
        ("export", f"{exported.export_seconds:.1f} s"),
        ("load", f"{found.load_seconds:.2f} s"),
        ("one answer", f"{found.milliseconds:.2f} ms at 64 frames of each modality"),
    ):
        table.add_row(Text(name), Text(value))
    return table
