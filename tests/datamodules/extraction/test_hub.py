"""Weights come from this machine unless a download is asked for, and nothing in them is run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.errors import InputError
from datamodules.extraction.extractor import Sound, Words
from datamodules.extraction.extractors import registry
from datamodules.extraction.recipes import Choice, from_attributes
from tests.cli.running import CHECKOUT
from tests.datamodules.extraction import tiny_models

pytest.importorskip("transformers")
ITEM = Words("one", "You said no")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small BERT, for reading."""
    folder = tmp_path_factory.mktemp("hub") / "bert"
    tiny_models.text("bert", folder)
    return folder


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(model, tmp_path / "bert"))


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Attempts at a connection, all of which fail; the hub's cache is an empty folder."""
    import huggingface_hub.constants

    made: list[str] = []

    def refuse(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made.append(f"{name} {args[-2:]}")
            raise OSError("blocked")

        return call

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse(name))
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse(name))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield made


def made(model: str | Path, download: bool = False, **options: Any) -> Any:
    return registry.build(Choice("hf-text", {"model": str(model), **options}), "text", download=download)


def line_of(model: str | Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        made(model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Without a network.


def test_a_folder_needs_no_connection(folder: Path, attempts: list[str]) -> None:
    assert made(folder)(ITEM).shape == (5, 16)
    assert not attempts


@pytest.mark.parametrize("name", ["bert-large-uncased", "some/one", "microsoft/wavlm-large"])
def test_a_model_that_is_not_here_is_one_line_and_no_attempt(name: str, attempts: list[str], tmp_path: Path) -> None:
    assert line_of(name) == (
        f"hf-text: {name}: is no folder, and not in huggingface.co's cache {tmp_path / 'cache'}; give the folder as "
        "option model, put it into a folder of IFMMIN_MODELS, or fetch it with --download."
    )
    assert not attempts


@pytest.mark.parametrize("name", ["/no/such/folder", "./gone", "a b", "..", "../x/y", "a/b/c", "~/bert"])
def test_a_folder_that_is_not_there(name: str, attempts: list[str]) -> None:
    assert line_of(name).startswith(f"hf-text: {name}: ")
    assert not attempts


def test_a_download_that_fails_is_one_line(attempts: list[str]) -> None:
    assert line_of("some/one", download=True).startswith("hf-text: some/one: cannot be downloaded (")
    assert attempts


# What is in a folder.


class Runs:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickled(folder: Path, **more: Any) -> None:
    """Replace the safetensors by pytorch_model.bin."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    torch.save({**weights, **more}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_plain_tensors_in_a_pickle_are_read(folder: Path, attempts: list[str]) -> None:
    """As microsoft/wavlm-large has them."""
    wanted = made(folder)(ITEM)
    pickled(folder)
    found = made(folder)
    assert not attempts
    assert (found(ITEM) == wanted).all()
    assert found.recipe()["sha256"] == hashlib.sha256((folder / "pytorch_model.bin").read_bytes()).hexdigest()


def test_a_pickle_that_runs_something_is_refused(folder: Path, tmp_path: Path) -> None:
    pickled(folder, more=Runs(tmp_path / "made"))
    assert line_of(folder).endswith(
        "its weights are no plain tensors, reading them would run code; bring a model.safetensors."
    )
    assert not (tmp_path / "made").exists()


def as_of_old(folder: Path, prefix: str) -> None:
    """Replace the safetensors by what older checkpoints hold: a task's head, and names of their time."""
    from safetensors.torch import load_file

    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    names |= {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = {"head.weight": torch.zeros(3, 16)}
    for name, value in load_file(folder / "model.safetensors").items():
        for new, old in names.items():
            name = name.replace(new, old)
        if not name.startswith(("pooler.", "masked_spec_embed")):
            weights[f"{prefix}.{name}"] = value
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_checkpoints_of_a_task_with_older_names(folder: Path) -> None:
    wanted = made(folder)(ITEM)
    as_of_old(folder, "bert")
    assert (made(folder)(ITEM) == wanted).all()


@pytest.mark.parametrize("kind", ["wavlm", "hubert"])
def test_speech_models_of_a_task_with_older_names(tmp_path: Path, kind: str) -> None:
    tiny_models.speech(kind, tmp_path)
    item = Sound("one", np.random.default_rng(0).standard_normal(8000).astype(np.float32), 16_000)
    choice = Choice("hf-speech", {"model": str(tmp_path)})
    wanted = registry.build(choice, "audio")(item)
    as_of_old(tmp_path, kind)
    assert (registry.build(choice, "audio")(item) == wanted).all()


def test_safetensors_win_over_a_pickle(folder: Path, tmp_path: Path) -> None:
    torch.save({"x": Runs(tmp_path / "made")}, folder / "pytorch_model.bin")
    assert made(folder)(ITEM).shape == (5, 16)
    assert not (tmp_path / "made").exists()


def test_code_beside_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'made')!r}).touch()\n")
    names = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    for kind in ("bert", "evil"):
        (folder / "config.json").write_text(json.dumps({**config, "model_type": kind, "auto_map": names}))
        if kind == "bert":
            made(folder)
        else:
            assert "is a model of type evil" in line_of(folder)
    assert not (tmp_path / "made").exists()


def test_weights_in_several_files(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    wanted = made(folder)(ITEM)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    half = len(weights) // 2
    parts = {"a.safetensors": [*weights][:half], "b.safetensors": [*weights][half:]}
    for name, keys in parts.items():
        save_file({key: weights[key] for key in keys}, folder / name, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: name for name, keys in parts.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = made(folder)
    assert (found(ITEM) == wanted).all()
    first = found.recipe()["sha256"]
    (folder / "b.safetensors").rename(folder / "c.safetensors")
    assert line_of(folder).endswith("lacks b.safetensors.")
    index["weight_map"] = {key: name.replace("b", "c") for key, name in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert made(folder).recipe()["sha256"] != first


def change(name: str, content: str | bytes | None) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        if content is None:
            (folder / name).unlink()
        elif isinstance(content, str):
            (folder / name).write_text(content)
        else:
            (folder / name).write_bytes(content)

    return apply


def without_half(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if "encoder.layer.1." not in key}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def of_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 21}))


INDEX = "model.safetensors.index.json"


def listed(content: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / INDEX).write_text(content)

    return apply


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change("config.json", None), "has no config.json that can be read"),
        (change("config.json", "{"), "has no config.json that can be read"),
        (change("config.json", b"\xff\xfe"), "has no config.json that can be read"),
        (change("config.json", "[" * 100_000), "has no config.json that can be read"),
        (change("config.json", "[]"), "its config.json is no object"),
        (change("config.json", "{}"), "is a model of type None, which is no text model known here: bert, "),
        (change("config.json", '{"model_type": "t5"}'), "is a model of type t5, which is no text model known here"),
        (change("config.json", '{"model_type": "bert", "hidden_size": "many"}'), "cannot be loaded ("),
        (change("model.safetensors", None), "has no weights: no model.safetensors and no pytorch_model.bin in "),
        (change("model.safetensors", b""), "cannot be loaded ("),
        (change("model.safetensors", b"\xff" * 100), "cannot be loaded ("),
        (listed("{"), f"{INDEX} cannot be read ("),
        (listed('{"weight_map": 3}'), f"{INDEX} cannot be read ("),
        (listed('{"weight_map": {}}'), "lacks all weights"),
        (listed('{"weight_map": {"a": "../../x"}}'), "lacks x"),
        (without_half, "of its weights are missing or of another shape, such as encoder.layer.1."),
        (of_another_shape, "cannot be loaded ("),
        (change("tokenizer.json", "{"), "its tokenizer cannot be loaded ("),
    ],
)
def test_a_damaged_model_is_one_line(folder: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(folder)
    line = line_of(folder)
    assert line.startswith(f"hf-text: {folder}: ")
    assert said in line


def test_weights_are_those_that_were_asked_for(folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert made(folder, sha256=digest.upper())(ITEM).shape == (5, 16)
    wrong = "0" * 64
    assert line_of(folder, sha256=wrong) == (
        f"hf-text: {folder}: has other weights than asked for: sha256 {digest[:12]}…, not {wrong[:12]}…; bring "
        "those, or leave out the option sha256."
    )


# With a hub.


class Hub(BaseHTTPRequestHandler):
    """Serves one folder as the model ``some/one``, with a file that no feature is computed from."""

    folder: Path
    asked: list[str]
    commit = "c" * 40

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if path.startswith("/api/"):
            entries = [{"rfilename": name, "size": len(content)} for name, content in self.files().items()]
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in self.files().items()
            ]
            info = {"id": "some/one", "modelId": "some/one", "sha": self.commit, "siblings": entries}
            self.reply(json.dumps(tree if "/tree/" in path else info).encode(), "application/json")
        else:
            self.reply(self.files()[path.rpartition("/")[2]], "application/octet-stream")

    def reply(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def test_a_download_is_announced_and_happens_once(folder: Path, tmp_path: Path) -> None:
    wanted = made(folder)(ITEM)
    (folder / "pytorch_model.bin").write_bytes(b"x" * 1000)
    (folder / "README.md").write_text("x")
    handler = type("Served", (Hub,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "import json, sys\n"
        "from datamodules.errors import InputError\n"
        "from datamodules.extraction.extractor import Words\n"
        "from datamodules.extraction.extractors import registry\n"
        "from datamodules.extraction.recipes import Choice\n"
        "for download in (False, True, False):\n"
        "    try:\n"
        "        made = registry.build(Choice('hf-text', {'model': 'some/one'}), 'text', download=download)\n"
        "        values = made(Words('one', 'You said no'))\n"
        "        print(json.dumps([made.name, made.recipe()['model'], values.tolist()]))\n"
        "    except InputError as error:\n"
        "        print(json.dumps(str(error)))\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120
    )
    server.shutdown()
    assert done.returncode == 0, done.stderr
    refused, fetched, again = map(json.loads, done.stdout.splitlines())
    assert "fetch it with --download" in refused
    assert fetched == again == ["one", "some/one", wanted.tolist()]
    size = sum((folder / name).stat().st_size for name in ("model.safetensors", *beside(folder)))
    announced = f"hf-text: some/one: downloading {size / 1e6:.1f} MB from http://127.0.0.1"
    assert done.stderr.count(announced) == 1, done.stderr
    names = {path.rpartition("/")[2] for path in handler.asked if "/resolve/" in path}  # type: ignore[attr-defined]
    assert names == {"model.safetensors", *beside(folder)}


def beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.json"))


# Weights on another machine.


def test_a_checkpoint_s_weights_are_found_by_their_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: list[str]
) -> None:
    """Provenance holds the folder's name alone."""
    wanted = made(folder)
    attribute = {"extractor": "hf-text", "options": {"model": "bert"}, "recipe": wanted.recipe(), "detector": None}
    recipe = from_attributes({"text": attribute})
    monkeypatch.chdir(tmp_path / "..")
    with pytest.raises(InputError, match="put it into a folder of IFMMIN_MODELS"):
        registry.build(recipe.choices["text"], "text")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("IFMMIN_MODELS", os.pathsep.join([str(tmp_path / "empty"), "", str(tmp_path)]))
    found = registry.build(recipe.choices["text"], "text")
    assert found.recipe() == wanted.recipe()
    assert (found(ITEM) == wanted(ITEM)).all()
    assert made("elsewhere/bert").recipe() == wanted.recipe()
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    with pytest.raises(InputError, match="has other weights than asked for"):
        registry.build(recipe.choices["text"], "text")
    assert not attempts
