"""Processors without AVX or F16C compute the same, and LLVM never calls a function that may not be there.

LLVM ends the process at a missing function, so what it would call is read from the assembly, for each target.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
import soundfile
from llvmlite import ir
from numba import njit, types

from streamcodec import Codec
from streamcodec.cli.loopback import sample_path
from streamcodec.errors import CheckpointError
from streamcodec_kernels import _processor, _simd
from streamcodec_kernels._simd import LANES, Emitter, flush_denormals, intrinsic, restore_denormals

TARGETS = {
    "baseline": ("x86_64-unknown-linux-gnu", "x86-64", ""),
    "nehalem": ("x86_64-unknown-linux-gnu", "nehalem", "+sse4.1,+sse4.2"),
    "sandy bridge, Numba without AVX": ("x86_64-unknown-linux-gnu", "sandybridge", "-avx,-avx2,+sse4.1"),
    "ivy bridge, Numba without AVX": ("x86_64-unknown-linux-gnu", "ivybridge", "-avx,-avx2,+f16c,+sse4.1"),
    "ivy bridge": ("x86_64-unknown-linux-gnu", "ivybridge", "+avx,-avx2,+f16c,-fma,+sse4.1"),
    "haswell": ("x86_64-unknown-linux-gnu", "haswell", "+avx,+avx2,+f16c,+fma,+sse4.1"),
    "haswell, F16C masked": ("x86_64-unknown-linux-gnu", "haswell", "+avx,+avx2,-f16c,+fma,+sse4.1"),
    "haswell, AVX masked last": ("x86_64-unknown-linux-gnu", "haswell", "+avx,+avx2,+f16c,+sse4.1,-avx"),
    "a name alone": ("x86_64-unknown-linux-gnu", "haswell", ""),
    "F16C alone": ("x86_64-unknown-linux-gnu", "x86-64", "+f16c"),
    "skylake server": ("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx,+avx2,+avx512f,+f16c,+fma,+sse4.1"),
    "macOS on Intel": ("x86_64-apple-darwin", "penryn", "+sse4.1"),
    "Windows": ("x86_64-pc-windows-msvc", "x86-64", ""),
    "ARM server": ("aarch64-unknown-linux-gnu", "generic", ""),
    "ARM server, NEON masked": ("aarch64-unknown-linux-gnu", "generic", "-neon"),
    "Apple": ("arm64-apple-darwin", "apple-m1", ""),
}


def assembly(triple: str, name: str, features: str) -> str:
    """What LLVM makes of every operation of the kernels that not all processors have."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = ir.Module("operations")
    module.triple = triple
    floats = ir.FloatType().as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [ir.IntType(16).as_pointer(), floats, floats, ir.IntType(64)])
    builder = ir.IRBuilder(ir.Function(module, signature, "operations").append_basic_block())
    halves, x, out, count = builder.function.args
    emit = Emitter(None, builder)
    mask = emit.mask(count)
    value = emit.fma(emit.load_half(halves), emit.round(emit.load(x, mask)), emit.load(x))
    builder.store(emit.sum(builder.load(x), value), x)
    emit.store(value, out, mask)
    builder.ret_void()
    target = llvm.Target.from_triple(triple)
    return str(
        target.create_target_machine(cpu=name, features=features).emit_assembly(llvm.parse_assembly(str(module)))
    )


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_no_kernel_needs_a_function_that_may_not_be_there(target, monkeypatch) -> None:
    triple, name, features = target
    try:
        llvm.initialize_all_targets()
        llvm.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip(f"this llvmlite has no {triple}")
    monkeypatch.setattr(_simd, "HALF_FLOATS", _processor.converts_halves(triple, features))
    monkeypatch.setattr(_simd, "ROUNDS", _processor.rounds_vectors(triple, features))
    text = assembly(triple, name, features)
    assert not re.findall(r"^\s*(?:callq?|jmpq?|bl|b)\s+[_a-z]\w*", text, re.MULTILINE)


def test_the_check_sees_what_llvm_would_call(monkeypatch) -> None:
    monkeypatch.setattr(_simd, "HALF_FLOATS", True)
    monkeypatch.setattr(_simd, "ROUNDS", True)
    text = assembly(*TARGETS["baseline"])
    assert "__extendhfsf2" in text
    assert "rintf" in text


def test_the_instructions_are_used_where_they_are() -> None:
    features = "+avx,+avx2,+f16c,+sse4.1"
    for triple in ("x86_64-unknown-linux-gnu", "x86_64-pc-windows-msvc"):
        assert _processor.converts_halves(triple, features)
        assert _processor.rounds_vectors(triple, features)
    assert _processor.converts_halves("arm64-apple-darwin", "")
    for triple in ("riscv64-linux-gnu", "powerpc64le-linux-gnu"):
        assert not _processor.converts_halves(triple, features)
        assert not _processor.rounds_vectors(triple, features)


def applied(monkeypatch, operation):
    """A compiled loop over LANES values at once, for a processor that has neither instruction."""
    monkeypatch.setattr(_simd, "HALF_FLOATS", False)
    monkeypatch.setattr(_simd, "ROUNDS", False)

    @intrinsic
    def apply(typing, source, target, at):
        def generate(context, builder, signature, args):
            emit = Emitter(context, builder)
            values = emit.pointer(signature.args[0], args[0], args[2])
            emit.store(operation(emit, values), emit.pointer(signature.args[1], args[1], args[2]))
            return context.get_dummy_value()

        return types.void(source, target, types.int64), generate

    @njit
    def loop(source, target):
        word = flush_denormals()
        for at in range(0, source.size, LANES):
            apply(source, target, at)
        restore_denormals(word)

    return loop


def test_every_float16_is_the_same_number_without_f16c(monkeypatch) -> None:
    bits = np.arange(2**16).astype(np.uint16)
    out = np.full(2**16, np.nan, np.float32)
    applied(monkeypatch, Emitter.load_half)(bits, out)
    expected = bits.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))


def test_numbers_are_rounded_the_same_without_sse41(monkeypatch) -> None:
    edges = np.array([0.5, 1.5, 2.5, 0.49999997, 2**22 + 0.5, 2**23 - 0.5, 2**23, 2**24 + 2, 3e38, np.inf, np.nan, 0])
    drawn = np.random.default_rng(0).standard_normal(500) * 10.0 ** np.arange(500).clip(max=9)
    values = np.concatenate([edges, -edges, drawn]).astype(np.float32)
    values = np.pad(values, (0, -len(values) % LANES))
    out = np.full_like(values, 7)
    applied(monkeypatch, lambda emit, pointer: emit.round(emit.load(pointer)))(values, out)
    np.testing.assert_array_equal(out, np.rint(values))
    np.testing.assert_array_equal(np.signbit(out), np.signbit(np.rint(values)))


_PROGRAM = """
import sys
import numpy as np
import test_processors
from streamcodec import Codec
np.savez(sys.argv[1], *test_processors.coded(Codec.load()))
"""


def coded(codec):
    """Codes [F, K] of a second of speech, and what codes [F, K] that do not depend on the processor decode to."""
    speech, _ = soundfile.read(sample_path(), dtype="float32", always_2d=True)
    frames = np.resize(speech[:, 0], (75, codec.frame_samples))
    fixed = np.random.default_rng(0).integers(0, codec.config.codebook_size, (20, codec.config.n_codebooks))
    engine = codec.engine
    codes = np.zeros((len(frames), codec.config.n_codebooks), np.int16)
    state = engine.encoder_state()
    for i, frame in enumerate(frames):
        engine.encode_step(frame[None], state, codes[i : i + 1])
    audio = np.zeros((len(fixed), codec.frame_samples), np.float32)
    state = engine.decoder_state()
    for i, row in enumerate(fixed.astype(np.int16)):
        engine.decode_step(row[None], state, audio[i : i + 1])
    return codes, audio


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "features"),
    [("generic", None), ("ivybridge", None), ("haswell", "+avx,+avx2,+fma,-f16c"), ("x86-64", "+f16c,-avx")],
)
def test_speech_has_the_same_codes_on_a_lesser_processor(name, features, tmp_path) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("these are names of x86 processors")
    try:
        codec = Codec.load()
    except CheckpointError as error:
        pytest.skip(f"no weights to run: {error}")
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"NUMBA_CPU_NAME": name, "PYTHONPATH": path}
    environment |= {} if features is None else {"NUMBA_CPU_FEATURES": features}
    target = tmp_path / "coded.npz"
    subprocess.run([sys.executable, "-c", _PROGRAM, str(target)], env=environment, check=True, timeout=900)
    codes, audio = coded(codec)
    with np.load(target) as there:
        other_codes, other_audio = there["arr_0"], there["arr_1"]
    assert np.any(codes != other_codes, axis=1).sum() <= 1  # a near tie, which another rounding may turn
    np.testing.assert_allclose(other_audio, audio, rtol=1e-4, atol=1e-5)
