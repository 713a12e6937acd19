"""Clips, alignment, codecs, cache and runner of the evaluation."""

import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from streamcodec.config import PRESETS
from streamcodec.errors import AudioError, BitrateError, CheckpointError, ConfigError, MissingExtraError
from streamcodec.evaluation import codecs, runner
from streamcodec.evaluation.alignment import align, delay_samples, fit_length
from streamcodec.evaluation.cache import Row, ScoreCache
from streamcodec.evaluation.clips import Clip, collect_clips, items_of_paths
from streamcodec.evaluation.codecs import Spec, open_codec
from streamcodec.evaluation.codecs.coded import Coded
from streamcodec.evaluation.codecs.ours import Ours
from streamcodec.evaluation.runner import evaluate
from streamcodec.evaluation.scoring import choose_metrics, score
from streamcodec.evaluation.sound_files import read_sound

RATE_HZ = 24_000


def sound(seconds=6.0, seed=0, rate_hz=RATE_HZ):
    """Noise with a moving level and colour, so that neither its delay nor its bandwidth is ambiguous."""
    rng = np.random.default_rng(seed)
    x = np.convolve(rng.standard_normal(int(seconds * rate_hz)), np.ones(4) / 4, "same")
    level = np.repeat(rng.uniform(0.02, 0.3, len(x) // 1000 + 1), 1000)[: len(x)]
    return (x * level).astype(np.float32)


def clip(seconds=2.0, seed=0, category="speech", name="clip"):
    return Clip(name, category, "source", sound(seconds, seed), RATE_HZ)


class Plain:
    """A codec that adds what it is told to; counts its calls."""

    codebook_size = 8

    def __init__(self, fingerprint="plain", error=0.01):
        self.fingerprint = fingerprint
        self.error = error
        self.calls = 0

    def code(self, clip):
        self.calls += 1
        if self.error is None:
            raise ValueError("broken\nin two lines")
        rng = np.random.default_rng(0)
        noisy = clip.samples + self.error * rng.standard_normal(len(clip.samples)).astype(np.float32)
        codes = rng.integers(0, 8, (2, 100)).astype(np.int16)
        return Coded(noisy, clip.sample_rate_hz, 3000 * clip.duration_s, codes)


@pytest.fixture
def plain(monkeypatch):
    """Every `ours@...` opens as a Plain."""
    made = {}

    def open_plain(spec):
        if spec.name != "ours":
            raise CheckpointError("no weights here")
        return made.setdefault(str(spec), Plain(f"plain {spec}", spec.kbps / 100 if spec.kbps < 99 else None))

    monkeypatch.setattr(runner, "open_codec", open_plain)
    return made


def test_spec_reads_name_path_and_rate():
    assert Spec.parse("opus@12") == Spec("opus", None, 12)
    assert str(Spec.parse(" ours:a@b/c:d.safetensors@1.5 ")) == "ours:a@b/c:d.safetensors@1.5"


@pytest.mark.parametrize(
    "text", ["opus", "opus@", "opus@fast", "opus@0", "opus@-6", "opus@nan", "opus@inf", "mp3@64", "@6", ""]
)
def test_spec_refuses_anything_else(text):
    with pytest.raises(ConfigError):
        Spec.parse(text)


@pytest.mark.parametrize("delay", [-500, -1, 0, 1, 77, 2000])
def test_delay_is_found_and_removed(delay):
    x = sound(2.0)
    late = fit_length(x[-delay:] if delay < 0 else np.concatenate([np.zeros(delay, np.float32), x]), len(x))
    noisy = late + 0.02 * sound(2.0, seed=1)
    assert delay_samples(x, noisy, 6000) == delay
    inside = slice(2000, -2000)
    np.testing.assert_allclose(align(x, late, RATE_HZ)[inside], x[inside], atol=0.02)


def test_a_periodic_sound_is_not_moved_by_a_period():
    t = np.arange(RATE_HZ) / RATE_HZ
    x = np.sin(2 * np.pi * 200 * t).astype(np.float32)
    assert delay_samples(x, x * np.linspace(0.5, 1, len(x), dtype=np.float32), 6000) == 0


def test_level_is_matched_within_six_decibels():
    x = sound(1.0)
    np.testing.assert_allclose(align(x, x * 0.7, RATE_HZ), x, atol=1e-6)
    np.testing.assert_allclose(align(x, x * 0.1, RATE_HZ), x * 0.2, atol=1e-6)
    assert not align(x, np.zeros_like(x), RATE_HZ).any()
    assert align(x, x[:100], RATE_HZ).shape == x.shape


def test_long_files_are_cut_and_short_ones_of_a_folder_joined(tmp_path):
    for folder, seconds, count in (("speech/anna", 1.5, 9), ("speech/ben", 1.5, 3), ("music", 40.0, 1)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(count):
            soundfile.write(tmp_path / folder / f"{i}.wav", sound(seconds, seed=i, rate_hz=8000), 8000)
    (tmp_path / "speech" / "notes.txt").write_text("no sound")
    clips, notes = collect_clips(items_of_paths([tmp_path]), RATE_HZ, 40)
    assert notes == []
    assert {(clip.category, clip.source.rpartition("/")[2]) for clip in clips} == {
        ("speech", "anna"),
        ("speech", "ben"),
        ("music", "music"),
    }
    assert all(clip.sample_rate_hz == RATE_HZ for clip in clips)
    # Ben said too little for a clip of 5 s, but he is not left out.
    assert all(5 <= clip.duration_s <= 10 or clip.source.endswith("ben") for clip in clips)
    assert sum(clip.category == "music" for clip in clips) == 4
    again, _ = collect_clips(items_of_paths([tmp_path]), RATE_HZ, 40)
    assert [clip.digest for clip in clips] == [clip.digest for clip in again]
    few, _ = collect_clips(items_of_paths([tmp_path]), RATE_HZ, 2)
    assert {clip.category for clip in few} == {"speech", "music"}


def test_clips_of_one_name_stay_apart(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "x.wav", sound(6.0, seed=ord(folder)), RATE_HZ)
    items = items_of_paths([tmp_path])
    twins = [type(item)("x", item.category, item.source, item.read) for item in items]
    assert {clip.name for clip in collect_clips(twins, RATE_HZ, 9)[0]} == {"x", "x (2)"}


def test_what_cannot_be_read_or_heard_is_left_out_with_a_line(tmp_path):
    (tmp_path / "torn.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    soundfile.write(tmp_path / "silent.wav", np.zeros(9 * RATE_HZ), RATE_HZ)
    with pytest.raises(AudioError, match=r"none of 2 .*torn\.wav"):
        collect_clips(items_of_paths([tmp_path]), RATE_HZ, 5)
    soundfile.write(tmp_path / "good.wav", sound(6.0), RATE_HZ)
    clips, notes = collect_clips(items_of_paths([tmp_path], "speech"), RATE_HZ, 5)
    assert [clip.category for clip in clips] == ["speech"]
    assert len(notes) == 1
    with pytest.raises(AudioError, match="does not exist"):
        items_of_paths([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="nothing to evaluate on"):
        items_of_paths([tmp_path / "empty"])


def test_a_corpus_gives_its_test_split(tmp_path, monkeypatch):
    entries = [
        SimpleNamespace(source="pkg", path=f"{s}{i}.wav", category="speech", group=f"speaker-{s}", split=s, seed=i)
        for s in ("train", "test")
        for i in range(2)
    ]
    fake = SimpleNamespace(
        select=lambda split: [entry for entry in entries if entry.split == split],
        audio=lambda entry: sound(6.0, seed=entry.seed),
    )
    reader = types.ModuleType("reader")
    reader.Corpus = SimpleNamespace(open=lambda root: fake)
    prepare = types.ModuleType("prepare")
    prepare.RATE_HZ = RATE_HZ
    monkeypatch.setitem(sys.modules, "streamcodec.training.corpus", types.ModuleType("corpus"))
    monkeypatch.setitem(sys.modules, "streamcodec.training.corpus.reader", reader)
    monkeypatch.setitem(sys.modules, "streamcodec.training.corpus.prepare", prepare)
    (tmp_path / "index.json").write_text("{}")
    clips, _ = collect_clips(items_of_paths([tmp_path]), RATE_HZ, 9)
    assert [(clip.name, clip.source) for clip in clips] == [
        ("pkg/test0.wav", "speaker-test"),
        ("pkg/test1.wav", "speaker-test"),
    ]
    with pytest.raises(AudioError, match="nothing in its 'dev' split"):
        items_of_paths([tmp_path], split="dev")


def test_formats_that_need_pyav_are_read(tmp_path):
    av = pytest.importorskip("av", reason="needs streamcodec[eval]")
    path = tmp_path / "a.g722"
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16_000, layout="mono")
        samples = (sound(1.0, rate_hz=16_000) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    samples, rate_hz = read_sound(path)
    assert rate_hz == 16_000
    assert abs(len(samples) - 16_000) < 400


@pytest.mark.parametrize("rate_hz", [16_000, 24_000, 44_100])
def test_opus_has_no_delay_left_and_costs_what_it_says(rate_hz):
    pytest.importorskip("av", reason="needs streamcodec[eval]")
    original = Clip("x", "music", "s", sound(3.0, rate_hz=rate_hz), rate_hz)
    coded = open_codec(Spec.parse("opus-cbr@64")).code(original)
    assert coded.sample_rate_hz == rate_hz
    assert len(coded.samples) == len(original.samples)
    assert coded.payload_bits / original.duration_s == pytest.approx(64_000, rel=0.01)
    assert delay_samples(original.samples, coded.samples, 2000) == 0
    error = coded.samples - original.samples
    assert np.mean(error**2) < 0.15 * np.mean(original.samples**2)


def test_opus_refuses_rates_it_does_not_have():
    with pytest.raises(BitrateError, match="Opus at 3 kbps"):
        open_codec(Spec.parse("opus@3"))


def test_ours_costs_whole_bytes_and_keeps_its_codes():
    config = PRESETS["tiny-24k"]

    def tokenize(waveform, bitrate_bps):
        return np.zeros((config.codebooks_for(bitrate_bps), len(waveform) // 320), np.int16)

    fake = SimpleNamespace(
        config=config,
        model_id="abc",
        tokenize=tokenize,
        detokenize=lambda codes: np.zeros(320 * codes.shape[1], np.float32),
    )
    ours = Ours(fake, 2.25, "abc")
    coded = ours.code(clip(2.0))
    assert coded.codes.shape == (3, 150)
    assert coded.payload_bits / 2 == 75 * 8 * 4  # 30 bits of codes are sent as 4 bytes
    assert "abc" in ours.fingerprint
    with pytest.raises(BitrateError):
        Ours(fake, 5, "abc")
    with pytest.raises(CheckpointError, match="no weights at"):
        Ours.open("nowhere.safetensors", 3)


def test_peers_that_cannot_run_say_why_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    for name in ("soundstream_encoder", "quantizer", "lyragan"):
        (tmp_path / f"{name}.tflite").write_bytes(b"")
    specs = [
        Spec.parse(text) for text in ("encodec@6", "lyra@6", f"lyra:{tmp_path}@6", "lyra@5", "lyra:.@9.2", "opus@999")
    ]
    outcome = evaluate([clip()], specs, ("mel",), jobs=0)
    assert outcome.rows == []
    assert len(outcome.notes) == len(specs)
    assert all(
        f"{spec} left out: " in note and "\n" not in note for spec, note in zip(specs, outcome.notes, strict=True)
    )
    with pytest.raises(MissingExtraError):
        open_codec(specs[0])


def test_lyra_sends_the_first_quantizers_of_every_frame(monkeypatch, tmp_path):
    seen = []

    class Interpreter:
        def __init__(self, path, num_threads):
            self.kind = path.rpartition("/")[2]
            assert num_threads == 1

        def allocate_tensors(self):
            pass

        def get_input_details(self):
            return [{"index": 0, "shape": (1, 320) if "encoder" in self.kind else (1, 1, 64)}]

        def get_output_details(self):
            return [{"index": 1}]

        def set_tensor(self, index, value):
            self.value = value

        def invoke(self):
            pass

        def get_tensor(self, index):
            return (
                np.full((1, 1, 64), self.value[0, 0])
                if "encoder" in self.kind
                else np.full((1, 320), self.value[0, 0, 0])
            )

        def get_signature_runner(self, name):
            def encode(input_frames, num_quantizers):
                assert num_quantizers == 16
                seen.append(float(input_frames[0, 0, 0]))
                return {"output_0": np.full((46, 1, 1), 7)}

            def decode(encoding_indices):
                assert encoding_indices.shape == (46, 1, 1)
                assert (encoding_indices[:16] == 7).all()
                assert (encoding_indices[16:] == -1).all()
                return {"output_0": np.full((1, 1, 64), seen[-1], np.float32)}

            encode.get_input_details = lambda: {"num_quantizers": {"shape": ()}}
            return {"encode": encode, "decode": decode}[name]

    module = types.ModuleType("ai_edge_litert.interpreter")
    module.Interpreter = Interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    for name in ("soundstream_encoder", "quantizer", "lyragan"):
        (tmp_path / f"{name}.tflite").write_bytes(b"")
    lyra = codecs.open_codec(Spec("lyra", str(tmp_path), 3.2))
    samples = np.repeat(np.linspace(-0.5, 0.5, 50), 320).astype(np.float32)
    coded = lyra.code(Clip("x", "speech", "s", samples, 16_000))
    np.testing.assert_array_equal(coded.samples, samples)
    assert coded.payload_bits == 50 * 64


def _tiny_peer(name, folder):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    transformers.utils.logging.disable_progress_bar()
    if name == "encodec":
        config = transformers.EncodecConfig(num_filters=4, hidden_size=16, codebook_dim=16, num_lstm_layers=1)
        model = transformers.EncodecModel(config)
    elif name == "dac":
        config = transformers.DacConfig(
            encoder_hidden_size=4, decoder_hidden_size=64, hidden_size=64, downsampling_ratios=[2, 4, 5, 8],
            upsampling_ratios=[8, 5, 4, 2], n_codebooks=12, sampling_rate=24_000,
        )  # fmt: skip
        model = transformers.DacModel(config)
    else:
        config = transformers.MimiConfig(
            num_filters=4, hidden_size=64, vector_quantization_hidden_dimension=16, codebook_dim=16,
            num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=32, intermediate_size=64,
            upsample_groups=64,
        )  # fmt: skip
        model = transformers.MimiModel(config)
    model.save_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "kbps", "shape"), [("encodec", 6, (8, 150)), ("dac", 6, (8, 150)), ("mimi", 1.1, (8, 25))]
)
def test_transformers_peers_code_with_weights_from_a_folder(name, kbps, shape, tmp_path):
    _tiny_peer(name, tmp_path)
    codec = open_codec(Spec(name, str(tmp_path), kbps))
    coded = codec.code(clip(2.0))
    assert 47_980 <= len(coded.samples) <= 48_000  # the 24 kHz DAC loses some at its odd stride
    assert coded.codes.shape == shape
    assert coded.payload_bits / 2 == pytest.approx(1000 * kbps, rel=0.01)
    with pytest.raises(BitrateError, match=f"this {name} has no"):
        open_codec(Spec(name, str(tmp_path), 0.01))


def test_speech_metrics_are_left_out_of_music():
    pytest.importorskip("pystoi", reason="needs streamcodec[eval]")
    one = clip()
    assert score(one.samples, one.samples, RATE_HZ, "music", ("stoi", "mel")).values == {"stoi": None, "mel": 0.0}
    assert score(one.samples, one.samples, RATE_HZ, "speech", ("stoi",)).values["stoi"] == pytest.approx(1)


def test_metrics_that_need_a_missing_package_are_left_out_with_a_line(monkeypatch):
    monkeypatch.setattr("streamcodec.evaluation.scoring.util.find_spec", lambda name: None)
    chosen, notes = choose_metrics(("mel", "pesq", "visqol", "mel"))
    assert chosen == ("mel",)
    assert [note.split(" left out")[0] for note in notes] == ["PESQ", "ViSQOL"]
    with pytest.raises(ConfigError, match="no metric 'polqa'"):
        choose_metrics(("polqa",))


def test_rows_come_in_the_order_asked_for_and_failures_become_lines(plain):
    clips = [clip(1.0, seed, name=f"c{seed}") for seed in range(2)]
    specs = [Spec.parse(text) for text in ("ours@2", "mimi@1.1", "ours@1", "ours@99")]
    seen = []
    outcome = evaluate(clips, specs, ("mel", "si_sdr"), jobs=0, progress=lambda done, total: seen.append((done, total)))
    assert [(row.codec, row.clip) for row in outcome.rows] == [
        ("ours@2", "c0"),
        ("ours@2", "c1"),
        ("ours@1", "c0"),
        ("ours@1", "c1"),
    ]
    assert outcome.rows[0].scores["si_sdr"] < outcome.rows[2].scores["si_sdr"]
    assert outcome.rows[0].kbps == pytest.approx(3)
    assert outcome.notes == [
        "mimi@1.1 left out: no weights here",
        "ours@99 has no score for c0: ValueError: broken",
        "ours@99 has no score for c1: ValueError: broken",
    ]
    assert seen[0] == (0, 6)
    assert seen[-1] == (6, 6)


def test_a_second_run_comes_from_the_cache(plain, tmp_path):
    cache = ScoreCache(tmp_path)
    clips, specs = [clip(1.0)], [Spec.parse("ours@1")]
    first = evaluate(clips, specs, ("mel",), jobs=0, cache=cache)
    second = evaluate(clips, specs, ("mel",), jobs=0, cache=cache)
    assert (first.from_cache, second.from_cache, plain["ours@1"].calls) == (0, 1, 1)
    assert first.rows == second.rows
    np.testing.assert_array_equal(first.rows[0].codes, second.rows[0].codes)
    renamed = [Clip("other name", "speech", "source", clips[0].samples, RATE_HZ)]
    assert evaluate(renamed, specs, ("mel",), jobs=0, cache=cache).rows[0].clip == "other name"
    assert plain["ours@1"].calls == 1
    evaluate(clips, specs, ("mel", "si_sdr"), jobs=0, cache=cache)
    evaluate([clip(1.0, seed=5)], specs, ("mel",), jobs=0, cache=cache)
    evaluate([clip(1.0, category="music")], specs, ("mel",), jobs=0, cache=cache)
    assert plain["ours@1"].calls == 4


def test_a_damaged_cache_is_computed_anew(plain, tmp_path):
    cache = ScoreCache(tmp_path)
    evaluate([clip(1.0)], [Spec.parse("ours@1")], ("mel",), jobs=0, cache=cache)
    (stored,) = tmp_path.rglob("*.npz")
    whole = stored.read_bytes()
    for damaged in (b"", whole[:50], b"not a file of ours", whole[:-30]):
        stored.write_bytes(damaged)
        outcome = evaluate([clip(1.0)], [Spec.parse("ours@1")], ("mel",), jobs=0, cache=cache)
        assert outcome.from_cache == 0
        assert len(outcome.rows) == 1
    assert ScoreCache(None).get("00", "ours@1", "x") is None
    blocked = tmp_path / "file"
    blocked.write_text("")
    ScoreCache(blocked).put("00", Row("c", "x", "speech", RATE_HZ, 1, 1, 1, {}))


def test_worker_processes_give_the_same_rows_as_this_one():
    pytest.importorskip("av", reason="needs streamcodec[eval]")
    clips = [clip(1.5, seed, name=f"c{seed}") for seed in range(2)]
    specs = [Spec.parse("opus@16")]
    alone = evaluate(clips, specs, ("mel", "si_sdr"), jobs=0)
    shared = evaluate(clips, specs, ("mel", "si_sdr"), jobs=2)
    assert shared.notes == []
    for a, b in zip(alone.rows, shared.rows, strict=True):
        assert (a.codec, a.clip, a.kbps) == (b.codec, b.clip, b.kbps)
        assert a.scores == pytest.approx(b.scores, rel=1e-6)
