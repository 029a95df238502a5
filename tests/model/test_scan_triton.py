"""Our Triton scan: run by Triton's interpreter on a CPU, compiled for a GPU that need not be there, and run on one."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from model.selective_scan import selective_scan
from tests.golden import load_golden
from tests.model.scan_cases import NAMES, with_gradients

DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
pytest.importorskip("triton")


def test_in_the_interpreter():
    """The tests of scan_triton_interpreted.py, where the interpreter is chosen before Triton is imported."""
    tests = Path(__file__).with_name("scan_triton_interpreted.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stdout[-5000:]


def test_without_triton_one_sentence_says_what_to_do():
    script = "import sys; sys.modules['triton'] = None; import model.scan_triton"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "ImportError: the triton scan needs Triton" in result.stderr


COMPILE = """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    from model import triton_kernels

    def check(kernel, **arguments):
        constants = {(i,): v for i, v in enumerate(arguments.values()) if not isinstance(v, (str, tuple))}
        signature = {n: v if isinstance(v, (str, tuple)) else "constexpr" for n, v in arguments.items()}
        constants |= {(1, i, 1): 1 for i in range(6)}
        assert list(signature) == kernel.arg_names
        compile(
            ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32), options={"num_warps": 1}
        )

    six, strides, f32 = ("*bf16",) * 6, (("i32", "constexpr", "i32"),) * 6, "*fp32"
    numbers = {"N": 16, "N_BLOCK": 16, "SOFTPLUS": True, "REVERSE": True}
    stretches = {"row": "i32", "width": "i32", "length": "i32", "stretch_steps": "i32", **numbers, "STRETCHES": 9}
    check(
        triton_kernels.scan_ends, tensors=six, strides=strides, A=f32, bias=f32, ends=f32, totals=f32, **stretches,
        CHANNELS=32,
    )
    check(
        triton_kernels.scan_stretch, tensors=six, strides=strides, A=f32, D=f32, bias=f32, ends=f32, totals=f32,
        states=f32, **stretches, CHUNK=64, CHANNELS=32,
    )
    check(
        triton_kernels.scan_gradients, tensors=six, strides=strides, A=f32, D=f32, bias=f32, states=f32,
        own=(f32,) * 3, shared=(f32,) * 2, sums=(f32,) * 3, width="i32", length="i32", **numbers, CHUNK=64, CHANNELS=4,
    )
    print("compiled")
"""


def test_kernels_compile_for_a_gpu_that_is_not_here(tmp_path, monkeypatch):
    """The interpreter accepts more of Python than the compiler; Triton compiles for Hopper on any machine."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    script = tmp_path / "compile_kernels.py"
    script.write_text(textwrap.dedent(COMPILE))
    command = [sys.executable, "-W", "ignore", str(script)]
    monkeypatch.setenv("PYTHONPATH", ".")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "compiled" in result.stdout, result.stderr[-3000:]


@pytest.mark.gpu
@gpu
@DIRECTIONS
@pytest.mark.parametrize("length", [1, 7, 64, 513])
def test_equals_the_official_code_on_a_gpu(length, reverse):
    golden = load_golden(f"selective_scan_L{length}")
    case = with_gradients({name: golden[name].cuda() for name in NAMES})
    out = selective_scan(**case, delta_softplus=True, reverse=reverse, implementation="triton")
    expected = golden["y_rev_f64" if reverse else "y_fwd_f64"]
    torch.testing.assert_close(out.double().cpu(), expected, atol=2e-5, rtol=1e-5)
    if length == 64:
        gradients = torch.autograd.grad(out, list(case.values()), golden["grad_out"].cuda())
        for name, gradient in zip(case, gradients, strict=True):
            exact = golden[f"grad_{'rev' if reverse else 'fwd'}_{name}_f64"]
            torch.testing.assert_close(gradient.double().cpu(), exact, atol=1e-4, rtol=1e-4)
