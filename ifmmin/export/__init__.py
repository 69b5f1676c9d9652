"""A trained model as one ONNX network, for programs without PyTorch."""

from ifmmin.export.comparing import Comparison
from ifmmin.export.exporting import TOLERANCE, Exported, export_checkpoint, export_model

__all__ = ["TOLERANCE", "Comparison", "Exported", "export_checkpoint", "export_model"]
