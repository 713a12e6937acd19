"""Compiles Triton kernels to machine code for cards that are not here, and reads what they would use."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SHARED_LIMIT_BYTES = {80: 163 * 1024, 90: 227 * 1024}
TARGETS = tuple(SHARED_LIMIT_BYTES)


@dataclass(frozen=True)
class Usage:
    """Resources of one compiled kernel; `stack_bytes` holds spilled registers."""

    registers: int
    stack_bytes: int
    shared_bytes: int


def compiled(
    kernel: Any, types: dict[str, str], constants: dict[str, Any], capability: int, warps: int, **options: Any
) -> Any:
    """Compile for compute capability `capability`, arguments aligned to 16 as torch's allocations are."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, type_ in enumerate(signature.values()) if type_.startswith("*")}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    return triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "enable_fp_fusion": True, **options},
    )


def loop_variables(code: Any) -> list[int]:
    """How many values each loop of compiled `code` hands from round to round."""
    loops = re.findall(r"scf\.for [^\n]*?iter_args\(([^)]*)\)", code.asm["ttgir"])
    return [carried.count("=") for carried in loops]


def usage(
    kernel: Any,
    types: dict[str, str],
    constants: dict[str, Any],
    capability: int,
    warps: int,
    folder: Path,
    **options: Any,
) -> Usage:
    """Compile as `compiled` does, and read the machine code's needs."""
    import triton

    code = compiled(kernel, types, constants, capability, warps, **options)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        pytest.skip("this triton brings no cuobjdump")
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(code.asm["cubin"])
    text = subprocess.run(
        [str(tool), "--dump-resource-usage", str(cubin)], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    assert found, text
    registers, stack, local = map(int, found.groups())
    return Usage(registers, stack + local, code.metadata.shared)


def assert_fits(found: Usage, capability: int) -> None:
    """No spills, and shared memory that the card has."""
    assert found.stack_bytes == 0, found
    assert found.shared_bytes <= SHARED_LIMIT_BYTES[capability], found
