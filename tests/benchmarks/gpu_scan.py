"""The selective scan on a GPU: each implementation against the others and against the memory-bandwidth floor."""

from typing import Any

import torch
from torch import Tensor

from model.selective_scan import selective_scan
from tests.benchmarks.gpu_timing import say, scan_bytes, seconds_per_call

STATES = 16


def scan_inputs(batch: int, width: int, length: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random inputs: u, delta, z (B, D, L); B, C (B, N, L); A, D and the bias in float32."""
    generator = torch.Generator(device).manual_seed(0)

    def rows(channels: int) -> Tensor:
        return torch.randn(batch, channels, length, generator=generator, device=device).to(dtype)

    return {
        "u": rows(width),
        "delta": rows(width) * 0.5 - 4,
        "A": -torch.arange(1.0, STATES + 1, device=device).repeat(width, 1),
        "B": rows(STATES),
        "C": rows(STATES),
        "D": torch.ones(width, device=device),
        "z": rows(width),
        "delta_bias": torch.zeros(width, device=device),
    }


def available(names: list[str], device: torch.device) -> list[str]:
    """The implementations of `names` that run here; says why another does not."""
    usable = []
    inputs = scan_inputs(1, 64, 8, device, torch.float32)
    for name in names:
        try:
            selective_scan(**inputs, delta_softplus=True, implementation=name)
        except (ImportError, RuntimeError, ValueError) as error:
            say(f"scan {name} does not run here: {error}")
        else:
            usable.append(name)
    return usable


def forward_and_backward(inputs: dict[str, Tensor], name: str) -> None:
    """One training step of the scan alone."""
    leaves = {key: tensor.detach().requires_grad_() for key, tensor in inputs.items()}
    selective_scan(**leaves, delta_softplus=True, implementation=name).sum().backward()


def measure_scan(
    names: list[str], batch: int, width: int, length: int, device: torch.device, bandwidth: float
) -> dict[str, Any]:
    """Seconds of each implementation in bfloat16, and by how much the forward pass exceeds the bandwidth floor."""
    inputs = scan_inputs(batch, width, length, device, torch.bfloat16)
    floor = scan_bytes(inputs["u"], STATES, 1) / bandwidth
    point: dict[str, Any] = {"batch": batch, "width": width, "length": length, "floor_seconds": floor}
    for name in names:
        with torch.inference_mode():
            forward = seconds_per_call(
                lambda name=name: selective_scan(**inputs, delta_softplus=True, implementation=name), device
            )
            backwards = seconds_per_call(
                lambda name=name: selective_scan(**inputs, delta_softplus=True, reverse=True, implementation=name),
                device,
            )
        both = seconds_per_call(lambda name=name: forward_and_backward(inputs, name), device, calls=3, rounds=3)
        point[name] = {"forward": forward, "reverse": backwards, "with_gradients": both, "by_floor": forward / floor}
        say(f"scan {name:9} B={batch:<3} L={length:<6} {forward * 1e6:9.0f} us  {forward / floor:6.2f} x floor")
    return point
