"""Supervised training of any backbone from one recipe; a killed run goes on from its last finished epoch."""

import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from model.features import FeatureConfig, LogMel
from model.labels import LabelSet
from model.registry import build_network
from model.training import augment
from model.training.data import Clip, ManifestError, load_waveforms, read_manifest, split, targets
from model.training.evaluate import clip_logits, esc50_top1, mean_average_precision
from model.training.recipe import Recipe, RecipeError


@dataclass
class Run:
    """Everything that changes while training, and so everything that a resumed run needs."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sounds:
    """Clips with their waveforms (S,) and multi-hot targets."""

    clips: list[Clip]
    waveforms: list[Tensor]
    targets: Tensor


def finetune(recipe: Recipe, manifest: Path, folder: Path, report: Callable[[str], None] = print) -> Run:
    """Train until the recipe's last epoch; progress and the resumable state go to `folder`.

    Raises: ManifestError, RecipeError or ValueError before any training if the parts do not fit together.
    """
    torch.manual_seed(recipe.seed)
    features = LogMel(FeatureConfig(**recipe.features))
    labels, training, validation = load_sounds(recipe, manifest, features.config.sample_rate, report)
    if len(training.clips) < recipe.batch:
        raise ManifestError(
            f"{manifest} leaves {len(training.clips)} clips to train on, fewer than a batch of {recipe.batch}"
        )
    network = build_network(recipe.backbone, {**recipe.backbone_config, "classes": len(labels)})
    start_at_priors(network, training.targets)
    run = Run(network, copy.deepcopy(network).eval().requires_grad_(False), _optimizer(network, recipe))
    folder.mkdir(parents=True, exist_ok=True)
    identity = json.dumps([asdict(recipe), list(labels.mids)])
    _resume(run, identity, folder / "last.pt")
    while run.epoch < recipe.epochs:
        started = time.monotonic()
        loss = _train_epoch(run, recipe, features, training)
        run.epoch += 1
        run.measured = measure(run.average, recipe, features, labels, validation)
        run.seconds += time.monotonic() - started
        _save(run, identity, folder / "last.pt")
        line = {"epoch": run.epoch, "loss": round(loss, 5), **run.measured, "seconds": round(run.seconds, 1)}
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        report(json.dumps(line))
    return run


def load_sounds(
    recipe: Recipe, manifest: Path, sample_rate: int, report: Callable[[str], None]
) -> tuple[LabelSet, Sounds, Sounds]:
    """(labels, training, validation) of a manifest; fold 0 as validation fold means: train on everything."""
    clips = read_manifest(manifest)
    labels = manifest_labels(clips)
    parts = split(clips, recipe.validation_fold) if recipe.validation_fold else (clips, [])
    sounds = []
    for part in parts:
        kept, waveforms = load_waveforms(part, sample_rate, report)
        sounds.append(Sounds(kept, waveforms, targets(kept, labels)))
    report(f"{len(sounds[0].clips)} clips to train on, {len(sounds[1].clips)} to validate, {len(labels)} labels")
    return labels, sounds[0], sounds[1]


def manifest_labels(clips: list[Clip]) -> LabelSet:
    """Every label that a manifest uses, ordered by mid."""
    return LabelSet.from_mids(sorted({mid for clip in clips for mid in clip.mids}))


def measure(
    network: nn.Module, recipe: Recipe, features: LogMel, labels: LabelSet, validation: Sounds
) -> dict[str, float]:
    """Macro mAP over the labels, and ESC-50 top-1, of the validation clips; only what these can tell."""
    if not validation.clips:
        return {}
    samples = round(recipe.window_seconds * features.config.sample_rate)
    scores = clip_logits(network, features, validation.waveforms, samples)
    measured = {
        "map": mean_average_precision(scores, validation.targets.numpy()),
        "esc50_top1": esc50_top1(scores, validation.clips, list(labels.mids)),
    }
    return {name: round(value, 4) for name, value in measured.items() if not math.isnan(value)}


def _train_epoch(run: Run, recipe: Recipe, features: LogMel, sounds: Sounds) -> float:
    """One pass of as many draws as there are clips; returns the mean loss."""
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + run.epoch)
    torch.manual_seed(recipe.seed * 100_003 + run.epoch)
    steps = len(sounds.clips) // recipe.batch
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16")
    losses = []
    run.network.train()
    for log_mel, wanted in batches(recipe, features, sounds, generator):
        for group in run.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _one_cycle(run.step / (steps * recipe.epochs), recipe.warmup_share)
        with autocast:
            logits = run.network(log_mel)
        loss = tagging_loss(logits, wanted, recipe.softmax_share)
        run.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(run.network.parameters(), recipe.gradient_norm)
        run.optimizer.step()
        run.step += 1
        _follow(run.average, run.network, min(recipe.ema_decay, (1 + run.step) / (10 + run.step)))
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def tagging_loss(logits: Tensor, wanted: Tensor, softmax_share: float) -> Tensor:
    """Binary cross-entropy summed over the classes, blended with cross-entropy over them; both (B, C), mean over B."""
    each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1)
    if not softmax_share:
        return each.mean()
    shares = wanted / wanted.sum(1, keepdim=True).clamp(min=1e-6)  # a clip without labels adds nothing
    ranking = -(shares * logits.log_softmax(1)).sum(1)
    return ((1 - softmax_share) * each + softmax_share * ranking).mean()


def start_at_priors(network: nn.Module, wanted: Tensor) -> None:
    """Set the head's bias so that an untrained network scores each class as often as it occurs; wanted (clips, C)."""
    biases = [p for name, p in network.named_parameters() if name.startswith("head") and name.endswith("bias")]
    with torch.no_grad():
        biases[-1].copy_(torch.logit(wanted.mean(0).clamp(1e-4, 0.5)))


def batches(recipe: Recipe, features: LogMel, sounds: Sounds, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented (log-mel (B, T, F), targets (B, C)) of one epoch."""
    samples = round(recipe.window_seconds * features.config.sample_rate)
    order = _draw(sounds.targets, recipe.balanced, generator)
    for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
        chosen = order[start : start + recipe.batch].tolist()
        placed = [augment.place(sounds.waveforms[i], samples, generator) for i in chosen]
        waveforms = torch.stack([waveform for waveform, _ in placed])
        lengths = torch.tensor([length for _, length in placed])
        if recipe.roll:
            waveforms = augment.random_roll(waveforms, lengths, generator)
        waveforms = augment.random_gain(waveforms, recipe.gain_decibels, generator)
        waveforms = augment.random_low_pass(waveforms, recipe.low_pass_share, features.config.sample_rate, generator)
        waveforms, lengths, wanted = augment.mix_up(
            waveforms,
            lengths,
            sounds.targets[chosen],
            recipe.mixup_probability,
            recipe.mixup_concentration,
            generator,
        )
        log_mel = features.unnormalised(waveforms, lengths)
        log_mel = augment.mask_spectrogram(log_mel, recipe.mask_mels, recipe.mask_frames, generator)
        yield features.normalise(log_mel, features.frame_counts(lengths)), wanted


def _draw(wanted: Tensor, balanced: bool, generator: Generator) -> Tensor:
    """Clip indices of one epoch: a permutation, or (balanced) draws weighted by the rarity of a clip's rarest label."""
    if not balanced:
        return torch.randperm(len(wanted), generator=generator)
    rarity = 1 / wanted.sum(0).clamp(min=1).sqrt()
    weights = (wanted * rarity).amax(1).clamp(min=float(rarity.min()))
    return torch.multinomial(weights, len(wanted), replacement=True, generator=generator)


def _one_cycle(progress: float, warmup_share: float) -> float:
    """Linear rise to 1 at `warmup_share` of the run, then a cosine down to 0."""
    if progress < warmup_share:
        return progress / warmup_share
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup_share) / max(1 - warmup_share, 1e-9)))


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; norms, biases, tokens, positions and the state-space parameters are not decayed."""
    decayed = [p for name, p in network.named_parameters() if p.ndim >= 2 and not _undecayed(name)]
    kept = [p for name, p in network.named_parameters() if p.ndim < 2 or _undecayed(name)]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def _undecayed(name: str) -> bool:
    return any(part in name for part in ("A_log", "A_b_log", "pos_embed", "cls_token", "dist_token"))


def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of the weights; buffers are copied."""
    with torch.no_grad():
        for old, new in zip(average.parameters(), network.parameters(), strict=True):
            old.lerp_(new, 1 - decay)
        for kept, latest in zip(average.buffers(), network.buffers(), strict=True):  # a batch norm's own averages
            kept.copy_(latest)


def _save(run: Run, identity: str, path: Path) -> None:
    state = {
        "identity": identity,
        "network": run.network.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "epoch": run.epoch,
        "step": run.step,
        "seconds": run.seconds,
        "measured": run.measured,
    }
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _resume(run: Run, identity: str, path: Path) -> None:
    """Go on from a saved state.

    Raises: RecipeError if it belongs to another recipe or other labels.
    """
    if not path.exists():
        return
    state = torch.load(path, weights_only=True)
    if state["identity"] != identity:
        raise RecipeError(
            f"{path.parent} holds a run of another recipe or other labels; name another folder for this one"
        )
    run.network.load_state_dict(state["network"])
    run.average.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.epoch, run.step, run.seconds = state["epoch"], state["step"], state["seconds"]
    run.measured = state["measured"]
