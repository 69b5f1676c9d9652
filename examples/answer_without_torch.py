"""Answer with an exported network: python answer_without_torch.py model.onnx audio=a.npy text=t.npy."""

import json
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
classes, modalities, widths = (json.loads(metadata[key]) for key in ("classes", "modalities", "widths"))
given = {name: np.load(file) for name, file in (word.split("=", 1) for word in sys.argv[2:])}
if not given:  # random frames, without the visual modality
    given = {m: np.random.randn(50, width) for m, width in zip(modalities, widths, strict=True) if m != "visual"}
lengths = np.array([[len(given.get(name, ())) for name in modalities]])
empty = {name: np.zeros((0, width)) for name, width in zip(modalities, widths, strict=True)}
frames = {name: np.float32(given.get(name, empty[name]))[None] for name in modalities}
answers = session.run(["answers"], {**frames, "lengths": lengths, "present": lengths > 0})[0][0]
for name, answer in zip(classes or ["value"], answers, strict=True):
    print(f"{name} {answer:.3f}")
