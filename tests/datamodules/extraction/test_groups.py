"""Groups of recordings, shards, and what a part depends on."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.extraction.groups import CLIPS, Sizes, groups_of, shard_of, sources_of
from datamodules.extraction.recordings import Recording, Source
from tests.datamodules.extraction.fakes import write_recordings


def test_every_recording_is_in_one_group_and_a_film_in_one_too(tmp_path: Path) -> None:
    recordings = write_recordings(tmp_path)
    groups = groups_of(recordings, Sizes())
    counts = Counter(name for group in groups for name in group.utterances)
    assert counts == Counter(recording.utterance for recording in recordings)
    for dialogue in range(3):
        (group,) = [group for group in groups if f"dialogue{dialogue}_turn0" in group.utterances]
        assert group.utterances == tuple(f"dialogue{dialogue}_turn{turn}" for turn in range(4))
    assert sorted(len(group.recordings) for group in groups) == [4, 4, 4, 41 - CLIPS, CLIPS]
    assert len({group.name for group in groups}) == len(groups)


def test_the_longest_are_first_and_no_order_of_recordings_matters(tmp_path: Path) -> None:
    recordings = write_recordings(tmp_path)
    groups = groups_of(recordings, Sizes())
    by_hand = {}
    for group in groups:
        sources = {source.path for each in group.recordings for source in (each.sound, each.picture) if source}
        by_hand[group.name] = sum(path.stat().st_size for path in sources if path.exists())
    assert [group.cost for group in groups] == sorted(by_hand.values(), reverse=True)
    random.Random(0).shuffle(recordings)
    assert groups_of(recordings, Sizes()) == groups


def test_films_of_one_name_are_groups_of_different_names(tmp_path: Path) -> None:
    recordings = [
        Recording(f"{folder}{turn}", picture=Source(tmp_path / folder / "film.avi", turn, turn + 1))
        for folder in "ab"
        for turn in (0, 1)
    ]
    first, second = groups_of(recordings, Sizes())
    assert first.name != second.name
    assert first.name.startswith("film-")


@pytest.mark.parametrize("name", ["../x", "a b", "ä", "x" * 300, "a\nb"])
def test_any_name_of_a_film_gives_a_file_name(name: str, tmp_path: Path) -> None:
    recordings = [Recording(str(turn), picture=Source(tmp_path / name, turn, turn + 1.0)) for turn in (0, 1)]
    (group,) = groups_of(recordings, Sizes())
    assert "/" not in group.name and group.name.isascii() and group.name.isprintable() and len(group.name) < 100


def test_shards_are_a_partition(tmp_path: Path) -> None:
    groups = groups_of(write_recordings(tmp_path, dialogues=9), Sizes())
    for shards in (1, 2, 8, 30):
        dealt = [group for shard in range(1, shards + 1) for group in shard_of(groups, shard, shards)]
        assert sorted(dealt, key=groups.index) == groups


def digests(recordings: list[Recording]) -> dict[str, str]:
    (group,) = groups_of(recordings, Sizes())
    return {modality: sources_of(group, modality, Sizes()) for modality in ("audio", "visual", "text")}


def test_a_part_depends_on_its_modality_only(tmp_path: Path) -> None:
    film, sound = tmp_path / "a.avi", tmp_path / "a.wav"
    film.write_bytes(b"film")
    sound.write_bytes(b"sound")
    one = Recording("a", Source(sound), Source(film, 0.0, 1.0), "words", "left")
    before = digests([one])

    def changed(other: Recording) -> set[str]:
        after = digests([other])
        return {modality for modality in before if after[modality] != before[modality]}

    assert changed(one) == set()
    assert changed(replace(one, label="angry", speaker="Ann")) == set()
    assert changed(replace(one, text="other words")) == {"text"}
    assert changed(replace(one, half="right")) == {"visual"}
    assert changed(replace(one, picture=Source(film, 0.0, 2.0))) == {"visual"}
    assert changed(replace(one, sound=Source(sound, 0.5))) == {"audio"}
    assert changed(replace(one, absent={"text": "no transcript"})) == {"text"}
    os.utime(film, ns=(0, 0))
    assert changed(one) == {"visual"}
    sound.write_bytes(b"sound!")
    assert changed(one) == {"audio", "visual"}


def test_a_corpus_may_be_moved(tmp_path: Path) -> None:
    recordings = write_recordings(tmp_path / "here", dialogues=1, clips=0)[:4]
    before = digests(recordings)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = [
        replace(
            each,
            sound=replace(each.sound, path=tmp_path / "there" / each.sound.path.name),
            picture=replace(each.picture, path=tmp_path / "there" / each.picture.path.name),
        )
        for each in recordings
        if each.sound and each.picture
    ]
    assert digests(moved) == before
