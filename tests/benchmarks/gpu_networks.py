"""Whole networks on a GPU: clips per second, share of the matrix peak, AuM against AST by length, training steps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model.backbones.ast_model import AST, ASTConfig
from model.backbones.ast_model import SIZES as AST_SIZES
from model.backbones.aum_model import AuM, AuMConfig
from model.backbones.ssam_model import SIZES as SSAM_SIZES
from model.backbones.ssam_model import SSAM, SSAMConfig
from model.features import AUDIOSET_FBANK, LogMel
from model.precision import to_precision
from tests.benchmarks.gpu_timing import peak_bytes, say, seconds_per_call

OutOfMemory = torch.OutOfMemoryError


def make_network(family: str, size: str, frames: int = 1024, stride: int = 10) -> nn.Module:
    """An untrained network for AudioSet's 527 classes on log-mel (B, frames, 128), or 80 mels for SSAM."""
    torch.manual_seed(0)
    if family == "aum":
        return AuM(AuMConfig(classes=527, frames=frames, width=AST_SIZES[size]["width"]))
    if family == "ssam":
        return SSAM(SSAMConfig(classes=527, **SSAM_SIZES[size]))
    return AST(ASTConfig(classes=527, frames=frames, stride_mels=stride, stride_frames=stride, **AST_SIZES[size]))


def log_mel_for(network: nn.Module, batch: int, device: torch.device) -> Tensor:
    """Random log-mel of ten seconds, or of the network's own length."""
    config: Any = network.config
    frames = 1000 if isinstance(network, SSAM) else config.frames
    return torch.randn(batch, frames, config.mels, device=device)


def product_flops(network: nn.Module, log_mel: Tensor) -> int:
    """Operations of the matrix products and convolutions of one forward pass; the scan's are not counted."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(log_mel)
    return counter.get_total_flops()


def measure_throughput(
    family: str, size: str, batches: list[int], device: torch.device, peak: float, compiled: bool
) -> list[dict[str, Any]]:
    """Clips per second and the share of the matrix peak at each batch size, bfloat16, until memory ends."""
    network = to_precision(make_network(family, size).eval().to(device), "bfloat16")
    flops = product_flops(network, log_mel_for(network, 1, device))
    run: Callable[[Tensor], Tensor] = torch.compile(network, mode="reduce-overhead") if compiled else network
    points = []
    for batch in batches:
        log_mel = log_mel_for(network, batch, device)
        try:
            with torch.inference_mode():
                seconds = seconds_per_call(lambda log_mel=log_mel: run(log_mel), device, calls=4)
        except OutOfMemory:
            say(f"{family}-{size} batch {batch}: out of memory")
            break
        share = flops * batch / seconds / peak
        mode = "compiled" if compiled else "eager"
        points.append({"network": f"{family}-{size}", "mode": mode, "batch": batch, "seconds": seconds, "peak": share})
        say(f"{family}-{size} {mode:8} batch {batch:<4} {batch / seconds:9.1f} clips/s  {share:6.1%} of the peak")
    return points


def measure_features(device: torch.device, batch: int) -> float:
    """Seconds to turn a batch of ten-second waveforms into log-mel."""
    features = LogMel(AUDIOSET_FBANK).to(device)
    waveforms = torch.randn(batch, 160_000, device=device) * 0.1
    lengths = torch.full((batch,), 160_000, device=device)
    with torch.inference_mode():
        return seconds_per_call(lambda: features(waveforms, lengths), device, calls=4)


def measure_tokens(size: str, tokens: int, device: torch.device) -> dict[str, Any]:
    """Seconds and peak memory of one clip of so many 16 x 16 patches: AuM and AST, bfloat16."""
    point: dict[str, Any] = {"tokens": tokens}
    for family in ("aum", "ast"):
        network = to_precision(make_network(family, size, tokens // 8 * 16, stride=16).eval().to(device), "bfloat16")
        log_mel = log_mel_for(network, 1, device)
        with torch.inference_mode():
            seconds = seconds_per_call(lambda n=network, x=log_mel: n(x), device, calls=4)
            memory = peak_bytes(lambda n=network, x=log_mel: n(x), device)
        point[family] = {"seconds": seconds, "peak_bytes": memory}
    ratio = point["ast"]["seconds"] / point["aum"]["seconds"]
    say(f"{tokens:>6} tokens  AST / AuM time {ratio:5.2f}")
    return point


def measure_training(family: str, size: str, batch: int, device: torch.device) -> dict[str, Any]:
    """Clips per second of a fine-tuning step in bfloat16: forward, backward and AdamW."""
    network = make_network(family, size).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    log_mel, wanted = log_mel_for(network, batch, device), torch.rand(batch, 527, device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(log_mel)
        nn.functional.binary_cross_entropy_with_logits(logits.float(), wanted).backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = seconds_per_call(step, device, calls=3, rounds=3)
    say(f"train {family}-{size} batch {batch}: {batch / seconds:8.1f} clips/s")
    return {"network": f"{family}-{size}", "batch": batch, "clips_per_second": batch / seconds}
