"""The built-in extractors against their packages called plainly."""

import logging
import socket
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.signal import resample_poly

from datamodules.errors import InputError
from datamodules.extraction.dependencies import require
from datamodules.extraction.extractor import Absent, Extractor, Pictures, Sound, Words
from datamodules.extraction.extractors import compare, minilm
from datamodules.extraction.extractors.compare import ComparE
from datamodules.extraction.extractors.face_hog import FaceHog
from datamodules.extraction.extractors.logmel import LogMel
from datamodules.extraction.extractors.minilm import MiniLM
from tests.datamodules.extraction.media_files import face_picture, voice

SENTENCE = "The library opens at nine on Mondays."


@pytest.fixture(scope="module")
def text() -> MiniLM:
    return MiniLM()


@pytest.fixture(scope="module")
def audio() -> ComparE:
    return ComparE()


def sound(seconds: float, loudness: float = 0.2) -> Sound:
    return Sound("u", voice(seconds, loudness=loudness).astype(np.float32), 16_000)


def faces(count: int = 3) -> Pictures:
    grey = face_picture(64, 64, 0, 64).mean(axis=2)
    pixels = np.stack([np.roll(grey, number, axis=1) for number in range(count)]).astype(np.uint8)
    return Pictures("u", pixels, np.arange(count) / 10, count)


def test_one_pass_of_compare_is_the_two_objects_of_the_package(audio: ComparE) -> None:
    import opensmile

    spoken = sound(2.0)
    halves = [
        opensmile.Smile(opensmile.FeatureSet.ComParE_2016, level, loglevel=0)
        for level in (
            opensmile.FeatureLevel.LowLevelDescriptors,
            opensmile.FeatureLevel.LowLevelDescriptors_Deltas,
        )
    ]
    descriptors, slopes = (half.process_signal(spoken.samples, 16_000).to_numpy() for half in halves)
    both = np.concatenate([descriptors, slopes[: len(descriptors)]], axis=1)
    np.testing.assert_array_equal(audio(spoken), resample_poly(both, 1, 10, axis=0).astype(np.float32))


def test_compare_of_fewer_than_eleven_frames_is_their_mean(audio: ComparE) -> None:
    found = audio(sound(0.12))
    assert found.shape == (1, 130) and np.isfinite(found).all()
    frames = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    np.testing.assert_allclose(compare.to_ten_hertz(frames), frames.mean(axis=0, keepdims=True), rtol=1e-6)


def test_compare_of_the_loudest_sample_does_not_wrap(audio: ComparE) -> None:
    samples = sound(0.5).samples.copy()
    samples[4000] = 1.0
    almost = samples.copy()
    almost[4000] = 32767 / 32768
    found, expected = (audio(Sound("u", values, 16_000)) for values in (samples, almost))
    np.testing.assert_array_equal(found, expected)


def test_compare_refuses_what_would_be_nan(audio: ComparE) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Absent, match="shorter"):
            audio(sound(0.05))
        audio(sound(0.06))


def test_licence_is_told_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_told", set())
    with caplog.at_level(logging.WARNING, "ifmmin"):
        ComparE()
        ComparE()
    assert [record.message for record in caplog.records] == [compare.LICENCE]


def test_face_hog_is_the_mean_over_blocks() -> None:
    equalize_hist = require("skimage.exposure").equalize_hist
    hog: Any = require("skimage.feature").hog

    given = faces(2)
    found = FaceHog()(given)
    assert found.shape == (2, 576) and found.dtype == np.float32
    for face, features in zip(given.pixels, found, strict=True):
        blocks = hog(equalize_hist(face), 9, (8, 8), (2, 2), "L2-Hys", feature_vector=False)
        for row in range(8):
            for column in range(8):
                values = [
                    blocks[i, j, row - i, column - j]
                    for i in range(7)
                    for j in range(7)
                    if 0 <= row - i < 2 and 0 <= column - j < 2
                ]
                cell = features.reshape(8, 8, 9)[row, column]
                np.testing.assert_allclose(cell, np.mean(values, axis=0), atol=1e-6)


def test_logmel_is_a_naive_loop() -> None:
    spoken = sound(0.53)
    samples = np.concatenate([np.zeros(200), spoken.samples, np.zeros(200)])
    hann = [0.5 - 0.5 * np.cos(2 * np.pi * n / 400) for n in range(400)]
    lowest, highest = (2595 * np.log10(1 + hertz / 700) for hertz in (20, 8000))
    edges = [700 * (10 ** (mel / 2595) - 1) for mel in np.linspace(lowest, highest, 42)]
    frames = []
    for start in range(0, len(samples) - 399, 160):
        power = np.abs(np.fft.fft(samples[start : start + 400] * hann, 512)[:257]) ** 2 / 200**2
        bands = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for bin_, value in enumerate(power):
                hertz = bin_ * 16_000 / 512
                if low < hertz <= middle:
                    total += value * (hertz - low) / (middle - low)
                elif middle < hertz < high:
                    total += value * (high - hertz) / (high - middle)
            bands.append(10 * np.log10(total + 1e-10))
        frames.append(bands)
    last = len(frames) - 1
    slopes = [
        [sum(k * (frames[min(t + k, last)][b] - frames[max(t - k, 0)][b]) for k in (1, 2)) / 10 for b in range(40)]
        for t in range(len(frames))
    ]
    both = np.concatenate([frames, slopes], axis=1)
    expected = [both[start : start + 10].mean(axis=0) for start in range(0, len(both), 10)]
    np.testing.assert_allclose(LogMel()(spoken), expected, atol=1e-4)


def test_minilm_does_not_depend_on_padding(text: MiniLM) -> None:
    import torch

    tokens = text._tokenizer([SENTENCE, SENTENCE + " " + SENTENCE], padding=True, return_tensors="pt")
    with torch.inference_mode():
        padded = text._model(**tokens).last_hidden_state[0].numpy()
    alone = text(Words("u", SENTENCE))
    assert alone.shape[0] == int(tokens["attention_mask"][0].sum()) < padded.shape[0]
    np.testing.assert_allclose(alone, padded[: len(alone)], atol=1e-5)


def test_minilm_cuts_after_256_tokens(text: MiniLM) -> None:
    assert text(Words("u", "no " * 1000)).shape == (256, 384)
    assert text(Words("u", "\u2603")).shape[1] == 384


def test_minilm_tries_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a connection was tried")

    for call in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, call, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert MiniLM()(Words("u", SENTENCE)).shape == (10, 384)


def test_minilm_refuses_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "SHA256", "0" * 64)
    with pytest.raises(InputError, match="not the expected weights"):
        MiniLM()


def test_contract(text: MiniLM, audio: ComparE) -> None:
    items = [(audio, sound(1.0)), (LogMel(), sound(1.0)), (FaceHog(), faces()), (text, Words("u", SENTENCE))]
    for extractor, item in items:
        assert isinstance(extractor, Extractor)
        first, second = extractor(item), extractor(item)
        assert first.dtype == np.float32 and first.shape[1] == extractor.width and np.isfinite(first).all()
        np.testing.assert_array_equal(first, second)
        assert extractor.recipe() == type(extractor)().recipe()
