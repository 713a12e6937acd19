"""Crops: pure in seed and step, balanced, full-band enough, augmented without harm; and packs that fit."""

import json

import numpy as np
import pytest
from corpus_audio import folder_of_voices, narrow, noise, save, voice

from streamcodec.errors import CorpusError
from streamcodec.training import augment
from streamcodec.training.corpus.build import Folder, build_folder, prepare_out
from streamcodec.training.corpus.index import write_index
from streamcodec.training.corpus.pack import choose_shards, pack
from streamcodec.training.corpus.prepare import RATE_HZ
from streamcodec.training.corpus.reader import Corpus
from streamcodec.training.corpus.report import summarise
from streamcodec.training.sampler import CropSampler

T = 6000


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four speakers of mixed and one of narrow bandwidth, four albums, four places."""
    base = tmp_path_factory.mktemp("corpus")
    folder_of_voices(base / "voices", speakers=5, files=2)
    for speaker in range(4):
        save(base / "voices" / f"s{speaker}" / "narrow.wav", narrow(voice(70 + speaker)))
    for group in range(4):
        chord = narrow(voice(50 + group, 3.0)) if group else voice(50, 3.0)
        save(base / "albums" / f"a{group}" / "1.wav", chord)
        save(base / "places" / f"p{group}" / "1.wav", noise(group, 3.0))
    out = base / "out"
    prepare_out(out)
    for folder, category in (("voices", "speech"), ("albums", "music"), ("places", "environment")):
        build_folder(out, Folder(base / folder, category, "CC0-1.0"), shard_s=4)
    write_index(out)
    return out


@pytest.fixture(scope="module")
def corpus(root):
    return Corpus.open(root)


def drawn(sampler, steps):
    """Items that the crops of some steps begin with."""
    seen = []
    read = sampler._read

    def spy(index, samples, rng):
        seen.append(sampler.items[index])
        return read(index, samples, rng)

    sampler._read = spy
    for step in range(steps):
        sampler.batch(step)
    return seen


def test_batch_depends_on_seed_and_step_only(corpus):
    first = CropSampler(corpus, "train", T, 8, seed=3)
    later = CropSampler(corpus, "train", T, 8, seed=3)
    for step in range(4):
        first.batch(step)
    assert np.array_equal(first.batch(7), later.batch(7))
    assert not np.array_equal(first.batch(7), first.batch(8))
    assert not np.array_equal(first.batch(7), CropSampler(corpus, "train", T, 8, seed=4).batch(7))


def test_workers_together_draw_the_batch_of_one(corpus):
    sampler = CropSampler(corpus, "train", T, 6, seed=0)
    parts = [sampler.batch(5, range(rank, 6, 2)) for rank in range(2)]
    whole = sampler.batch(5)
    assert np.array_equal(whole[0::2], parts[0])
    assert np.array_equal(whole[1::2], parts[1])


@pytest.mark.parametrize("samples", [1, 999, T, 3 * RATE_HZ])
def test_crops_are_finite_float32_below_full_scale(corpus, samples):
    batch = CropSampler(corpus, "train", samples, 5, seed=1).batch(0)
    assert batch.shape == (5, samples)
    assert batch.dtype == np.float32
    assert np.isfinite(batch).all()
    assert np.abs(batch).max() <= 0.981


def test_categories_come_in_their_shares(corpus):
    sampler = CropSampler(corpus, "train", T, 20, 0, {"speech": 0.5, "music": 0.2, "environment": 0.3}, augment=False)
    categories = [item.category for item in drawn(sampler, 30)]
    assert categories.count("speech") == 300
    assert categories.count("music") == 120
    assert categories.count("environment") == 180


def test_full_band_share_is_guaranteed(corpus):
    train = corpus.select("train", "speech")
    wide = sum(item.length for item in train if item.eff_bw_hz >= 10_800) / sum(item.length for item in train)
    assert 0 < wide < 1
    for share in (0.0, 0.6, 1.0):
        sampler = CropSampler(corpus, "train", T, 20, 0, {"speech": 1.0}, full_band_share=share, augment=False)
        items = drawn(sampler, 30)
        got = sum(item.eff_bw_hz >= 10_800 for item in items) / len(items)
        assert got >= share - 1e-9
        assert got == pytest.approx(share + (1 - share) * wide, abs=0.08)


def test_unbalanced_draws_follow_the_hours(corpus):
    sampler = CropSampler(corpus, "train", T, 40, 0, balanced=False, augment=False)
    items = drawn(sampler, 30)
    train = corpus.select("train")
    total = sum(item.length for item in train)
    for category in ("speech", "music", "environment"):
        hours = sum(item.length for item in train if item.category == category) / total
        assert sum(item.category == category for item in items) / len(items) == pytest.approx(hours, abs=0.06)


def test_short_items_are_joined_within_their_group(corpus):
    sampler = CropSampler(corpus, "train", 4 * RATE_HZ, 4, 0, {"speech": 1.0}, augment=False)
    read = []
    audio = corpus.audio
    sampler.corpus = type("Spy", (), {"audio": lambda _self, item, *a: read.append(item) or audio(item, *a)})()
    for crop in sampler.batch(0):
        level = np.sqrt(np.mean(crop.reshape(-1, RATE_HZ) ** 2, axis=1))
        assert level.min() > 0.01
    assert len(read) > 8
    sampler = CropSampler(corpus, "train", 4 * RATE_HZ, 4, 0, {"speech": 1.0}, full_band_share=1.0, augment=False)
    read.clear()
    sampler.corpus = type("Spy", (), {"audio": lambda _self, item, *a: read.append(item) or audio(item, *a)})()
    sampler.batch(0)
    assert all(item.eff_bw_hz >= 10_800 for item in read)


def test_splits_do_not_meet(corpus):
    seen = {split: {item.group for item in corpus.select(split)} for split in ("train", "validation", "test")}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    for split in seen:
        assert {item.category for item in corpus.select(split)} == {"speech", "music", "environment"}


@pytest.mark.parametrize(
    "options",
    [
        {"split": "nonsense"},
        {"crop_samples": 0},
        {"batch": 0},
        {"seed": -1},
        {"full_band_share": 1.5},
        {"category_weights": {"noise": 1.0}},
        {"category_weights": {"speech": 0.0}},
        {"category_weights": {"speech": float("nan")}},
    ],
)
def test_impossible_orders_are_refused(corpus, options):
    order = {"split": "train", "crop_samples": T, "batch": 2, "seed": 0} | options
    with pytest.raises(CorpusError):
        CropSampler(corpus, **order)


@pytest.mark.parametrize("factor", augment.SPEED_DOWN)
def test_speed_moves_a_tone_to_where_it_belongs(factor):
    samples = 8000
    t = np.arange(augment.source_samples(samples, factor)) / RATE_HZ
    wave = np.sin(2 * np.pi * 3000 * t).astype(np.float32)
    out = augment.change_speed(wave, factor, samples)
    assert out.shape == (samples,)
    assert out.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(out * np.hanning(samples)))
    tone = 3000 * factor / 20 * samples / RATE_HZ
    assert abs(int(spectrum.argmax()) - tone) <= 1
    far = np.ones(len(spectrum), bool)
    far[round(tone) - 8 : round(tone) + 9] = False
    assert spectrum[far].max() < 1e-3 * spectrum.max()
    assert np.sqrt(np.mean(out**2)) == pytest.approx(np.sqrt(0.5), rel=0.02)


def test_tilt_raises_the_top_and_lowers_the_bottom():
    t = np.arange(RATE_HZ) / RATE_HZ
    for tone_hz, sign in ((60, -1), (10_000, 1)):
        wave = np.sin(2 * np.pi * tone_hz * t).astype(np.float32)
        change_db = 20 * np.log10(np.std(augment.tilt(wave, 4.0)[2400:]) / np.std(wave))
        assert change_db == pytest.approx(4.0 * sign, abs=0.3)


def test_mix_keeps_the_ratio_asked_for():
    wave, background = noise(1)[:8000], noise(2)[:8000]
    mixed = augment.mix(wave, background, 10.0)
    ratio_db = 10 * np.log10(np.sum(wave**2) / np.sum((mixed - wave) ** 2))
    assert ratio_db == pytest.approx(10.0, abs=0.01)
    assert augment.mix(wave, np.zeros(8000, np.float32), 10.0) is wave


def test_pack_fits_and_keeps_every_split(root, tmp_path):
    size = sum(path.stat().st_size for path in (root / "shards").iterdir()) / 1e6
    pack(root, tmp_path / "all", size + 0.1)
    small = size * 0.6
    pack(root, tmp_path / "small", small)
    used = sum(path.stat().st_size for path in (tmp_path / "small").rglob("*") if path.is_file())
    assert used <= small * 1e6
    packed, whole = Corpus.open(tmp_path / "small"), Corpus.open(root)
    assert Corpus.open(tmp_path / "all").items == whole.items
    assert packed.fingerprint != whole.fingerprint == Corpus.open(root).fingerprint
    assert {item.category for item in packed.select("train")} == {"speech", "music", "environment"}
    assert 0 < len(packed.items) < len(whole.items)
    CropSampler(packed, "train", T, 2, 0).batch(0)


def test_pack_without_room_says_how_much_it_needs(root, tmp_path):
    with pytest.raises(CorpusError, match="--megabytes"):
        pack(root, tmp_path / "none", 0.001)
    assert not (tmp_path / "none").exists()


def test_pack_takes_first_shards_of_all_sources_first():
    items, shards = [], {}
    for source in ("a", "b"):
        for number in range(3):
            name = f"{source}-speech-train-{number:03d}.opus"
            shards[name] = {"samples": 100, "bytes": 10_000}
            items.append({"shard": name, "category": "speech", "split": "train", "group": source})
    index = {"items": items, "shards": shards}
    assert choose_shards(index, 22_000) == {"a-speech-train-000.opus", "b-speech-train-000.opus"}


def test_report_adds_up(corpus):
    report = summarise(corpus.items)
    total = sum(item.length for item in corpus.items) / RATE_HZ / 3600
    for table in (report.by_split, report.by_bandwidth, report.by_licence):
        assert sum(table.values()) == pytest.approx(total)


@pytest.mark.parametrize("damage", ["no index", "not json", "no key", "outside", "shard gone", "escape"])
def test_damaged_corpus_is_refused(root, tmp_path, damage):
    data = json.loads((root / "index.json").read_text())
    (tmp_path / "shards").mkdir()
    for shard in data["shards"]:
        (tmp_path / "shards" / shard).write_bytes(b"")
    text = None
    if damage == "not json":
        text = "{"
    elif damage == "no key":
        del data["items"][0]["length"]
    elif damage == "outside":
        data["items"][0]["start"] = 10**9
    elif damage == "shard gone":
        (tmp_path / "shards" / data["items"][0]["shard"]).unlink()
    elif damage == "escape":
        data["shards"]["../x.opus"] = {"samples": 1, "bytes": 1}
    if damage != "no index":
        (tmp_path / "index.json").write_text(json.dumps(data) if text is None else text)
    with pytest.raises(CorpusError):
        Corpus.open(tmp_path)


def test_damaged_shard_is_named(root, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "index.json").write_text((root / "index.json").read_text())
    for shard in Corpus.open(root).shard_samples:
        (tmp_path / "shards" / shard).write_bytes(b"OggS nonsense")
    corpus = Corpus.open(tmp_path)
    with pytest.raises(CorpusError, match=r"\.opus cannot be decoded"):
        corpus.audio(corpus.items[0])


def test_cache_follows_a_rebuilt_shard(root, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "index.json").write_text((root / "index.json").read_text())
    for shard in Corpus.open(root).shard_samples:
        (tmp_path / "shards" / shard).write_bytes((root / "shards" / shard).read_bytes())
    first = Corpus.open(tmp_path)
    first.fill_cache()
    item = first.items[0]
    cache = tmp_path / "cache" / (item.shard.removesuffix(".opus") + ".i16")
    good = first.audio(item)
    cache.write_bytes(cache.read_bytes()[:-2])
    assert np.array_equal(Corpus.open(tmp_path).audio(item), good)
