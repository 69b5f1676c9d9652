"""``torch.export`` traces the encoders, and the parts never import Lightning."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from baselines.mctn.networks import AttentionDecoder
from ifmmin.nn.encoders import LSTMEncoder, TextCNN

CASES = {
    "TextCNN": (TextCNN(7, 8, 4), (torch.randn(3, 9, 7), torch.tensor([9, 5, 6]))),
    "LSTMEncoder": (LSTMEncoder(7, 8), (torch.randn(3, 9, 7), torch.tensor([9, 5, 6]))),
    "LSTMEncoder, attention": (LSTMEncoder(7, 8, "attention"), (torch.randn(3, 9, 7), torch.tensor([9, 5, 6]))),
    "AttentionDecoder": (AttentionDecoder(6, [5, 7, 9]), (torch.randn(2, 4, 6),)),
}


@pytest.mark.parametrize("name", CASES)
def test_exported_networks_answer_alike(name: str) -> None:
    network: nn.Module
    network, inputs = CASES[name]
    network.eval()
    exported = torch.export.export(network, inputs).module()
    torch.testing.assert_close(exported(*inputs), network(*inputs), rtol=1e-5, atol=1e-6)


def test_the_parts_do_not_import_lightning() -> None:
    program = (
        "import importlib, pkgutil, sys, ifmmin.nn\n"
        "for found in pkgutil.walk_packages(ifmmin.nn.__path__, 'ifmmin.nn.'): importlib.import_module(found.name)\n"
        "print('lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
