"""The Hub, played by a folder."""

from __future__ import annotations

import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import InputError
from ifmmin import MissingModalityModule, Predictor
from ifmmin.results.files import write_results
from tests.cli.running import same
from tests.ifmmin.sharing.saved import fresh, record, results

hub = pytest.importorskip("huggingface_hub")


class Stub:
    """Repositories as folders ``root/org/name/revision``; what huggingface_hub was asked is in ``asked``."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, list[dict[str, Any]]()

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        self.asked.append({"repo_id": repo_id, **options})
        stored = self.root / repo_id / (options["revision"] or "main")
        place = self.root / "cache" / f"{len(self.asked)}"
        place.mkdir(parents=True)
        for path in stored.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in options["allow_patterns"]):
                shutil.copy(path, place)
        return str(place)

    def create_repo(self, api: Any, repo_id: str, **options: Any) -> Any:
        self.asked.append({"repo_id": repo_id, **options})
        return type("Url", (), {"repo_id": repo_id})()

    def upload_folder(self, api: Any, *, repo_id: str, folder_path: Path, revision: str | None, **options: Any) -> str:
        place = self.root / repo_id / (revision or "main")
        shutil.copytree(folder_path, place, dirs_exist_ok=True)
        for pattern in options["delete_patterns"] or ():
            (place / pattern).unlink(missing_ok=True)
        return f"https://huggingface.co/{repo_id}/commit/1"


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    found = Stub(tmp_path / "hub")
    monkeypatch.setattr(hub, "snapshot_download", found.snapshot_download)
    monkeypatch.setattr(hub.HfApi, "create_repo", lambda api, **options: found.create_repo(api, **options))
    monkeypatch.setattr(hub.HfApi, "upload_folder", lambda api, **options: found.upload_folder(api, **options))
    monkeypatch.chdir(tmp_path)
    return found


def test_a_model_goes_there_and_back(stub: Stub) -> None:
    model = fresh("MeanFusion")
    assert model.push_to_hub("lab/mean") == "https://huggingface.co/lab/mean/commit/1"
    assert stub.asked[0]["private"] is True
    stored = {path.name for path in (stub.root / "lab/mean/main").iterdir()}
    assert stored == {"README.md", "config.json", "model.safetensors", "preprocessing.safetensors"}
    assert "license: unknown" in (stub.root / "lab/mean/main/README.md").read_text()
    again = MissingModalityModule.from_pretrained("lab/mean")
    assert same(model.state_dict(), again.state_dict())


def test_scores_of_other_weights_do_not_stay(stub: Stub, tmp_path: Path) -> None:
    write_results(results(fresh("MeanFusion")), tmp_path / "run")
    scored = Predictor(fresh("MeanFusion"), record())
    scored.push_to_hub("lab/mean", run=tmp_path / "run")
    assert (stub.root / "lab/mean/main/results.json").is_file()
    scored.push_to_hub("lab/mean")
    stored = {path.name for path in (stub.root / "lab/mean/main").iterdir()}
    assert stored == {"README.md", "config.json", "model.safetensors", "preprocessing.safetensors"}


def test_a_predictor_goes_there_and_back_by_revision(stub: Stub) -> None:
    old, new = (Predictor(fresh("MeanFusion"), record(seed=seed)) for seed in (1, 2))
    old.push_to_hub("lab/mean", revision="v1")
    new.push_to_hub("lab/mean", private=False)
    assert stub.asked[1]["private"] is False
    for revision, seed in (("v1", 1), (None, 2)):
        again = Predictor.from_pretrained("lab/mean", revision=revision, token="secret")
        assert again.model.trained_on is not None
        assert again.model.trained_on["seed"] == seed
        assert stub.asked[-1]["revision"] == revision
        assert stub.asked[-1]["token"] == "secret"


def test_no_pickle_is_fetched_or_read(stub: Stub) -> None:
    fresh("MeanFusion").push_to_hub("lab/mean")
    for name in ("pytorch_model.bin", "epoch001.ckpt", "modeling.py"):
        (stub.root / "lab/mean/main" / name).write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    MissingModalityModule.from_pretrained("lab/mean")
    assert {path.suffix for path in (stub.root / "cache/2").iterdir()} == {".md", ".json", ".safetensors"}
    assert not Path("hacked").exists()


@pytest.mark.parametrize("name", ["mean", "a/b/c", "lab/", "/mean", "lab/me an", "../mean", "lab/\x1b[2J"])
def test_a_name_that_is_none_is_not_asked_for(stub: Stub, name: str) -> None:
    with pytest.raises(InputError, match="no name on the Hub; give org/name"):
        fresh("MeanFusion").push_to_hub(name)
    with pytest.raises(InputError, match="there is no such folder; give one, org/name of the Hub, or one of priv"):
        MissingModalityModule.from_pretrained(name)
    assert stub.asked == []


def _raising(error: Exception) -> Any:
    def call(*_: Any, **__: Any) -> str:
        raise error

    return call


def _http(kind: str) -> Exception:
    """An error of huggingface_hub, made without a response."""
    error: Exception = getattr(hub.errors, kind).__new__(getattr(hub.errors, kind))
    Exception.__init__(error, "404 Client Error\nwith a second line")
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (_http("RepositoryNotFoundError"), "lab/mean: neither a folder here nor a model on the Hub"),
        (_http("GatedRepoError"), "lab/mean: its owner gives access on request"),
        (_http("RevisionNotFoundError"), "lab/mean: the Hub has no revision v9"),
        (hub.errors.LocalEntryNotFoundError("not cached"), "lab/mean: no folder here, and the Hub cannot be reached"),
        (OSError("boom\nsecond line"), r"lab/mean: the Hub's library failed \(boom\)"),
    ],
    ids=["unknown", "gated", "revision", "no network", "anything"],
)
def test_what_the_hub_refuses_is_one_line(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "snapshot_download", _raising(error))
    with pytest.raises(InputError, match=line) as raised:
        MissingModalityModule.from_pretrained("lab/mean", revision="v9")
    assert "\n" not in str(raised.value)


def test_offline_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)  # read when huggingface_hub is imported
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set, so the Hub is not asked; unset it") as raised:
        Predictor.from_pretrained("lab/never-fetched")
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="not fetched before; leave out local_files_only"):
        Predictor.from_pretrained("lab/never-fetched", local_files_only=True)


def test_the_extra_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r'pip install "ifmmin\[hub\]"'):
        MissingModalityModule.from_pretrained("lab/mean")
    fresh("MeanFusion").save_pretrained(tmp_path / "saved")  # needs no Hub
    MissingModalityModule.from_pretrained(tmp_path / "saved")


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    fresh("MeanFusion").save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match="is a folder of this machine; leave revision out"):
        MissingModalityModule.from_pretrained(tmp_path / "saved", revision="main")
