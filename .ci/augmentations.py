"""Draws docs/images/augmentations.png: what each augmentation does to one sound. Run by `make augmentations`."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot
from PIL import Image
from torch import Generator, Tensor

from model.features import FeatureConfig, LogMel
from model.training import augment

RATE = 16000
SAMPLES = 3 * RATE
FEATURES = LogMel(FeatureConfig("fbank", mels=64, frames=298, mean=-7.0, std=4.0))
LENGTHS = torch.tensor([SAMPLES, SAMPLES])
TARGETS = torch.eye(2)
PATH = Path("docs/images/augmentations.png")


def chirps() -> Tensor:
    """Five rising calls with overtones, over a hum and a little noise."""
    seconds = torch.arange(SAMPLES) / RATE
    phase = 2 * torch.pi * (500 * seconds + 150 * (seconds * 5 % 3 / 3) ** 2 / 5)
    calls = sum(torch.sin(phase * overtone) / overtone for overtone in range(1, 9))
    loud = torch.relu(torch.sin(2 * torch.pi * 5 / 3 * seconds)) ** 2
    hum = 0.01 * torch.sin(2 * torch.pi * 120 * seconds)
    return 0.1 * calls * loud + hum + 0.0005 * torch.randn(SAMPLES, generator=Generator().manual_seed(1))


def knocks() -> Tensor:
    """Nine short dull knocks."""
    seconds = torch.arange(SAMPLES) / RATE
    noise = torch.randn(SAMPLES, generator=Generator().manual_seed(2))
    return 0.3 * noise * torch.exp(-30 * (seconds % (1 / 3))) + 0.0005 * noise


def hear(waveforms: Tensor, lengths: Tensor = LENGTHS) -> Tensor:
    """The first row's log-mel before normalisation (T, F)."""
    return FEATURES.unnormalised(waveforms, lengths)[0]


def panels() -> dict[str, Tensor]:
    """Title → log-mel (T, F) of each picture."""
    rows = torch.stack([chirps(), knocks()])
    log_mel = FEATURES.unnormalised(rows, LENGTHS)
    short = rows[0, : RATE * 3 // 2]

    def drawn(change: Callable[[Generator], Tensor], seed: int = 0) -> Tensor:
        return change(Generator().manual_seed(seed))

    def placed(generator: Generator) -> Tensor:
        waveform, length = augment.place(short, SAMPLES, generator)
        return hear(waveform[None], torch.tensor([length]))

    def noisy(generator: Generator) -> Tensor:
        return hear(augment.random_noise(rows, LENGTHS, 1.0, (10.0, 10.0), generator))

    def background(generator: Generator) -> Tensor:
        return hear(augment.random_background(rows, LENGTHS, TARGETS, 1.0, (10.0, 10.0), generator)[0])

    normalised = FEATURES.normalise(log_mel)
    return {
        "the sound": log_mel[0],
        "another sound": log_mel[1],
        "place: in silence": drawn(placed, 1),
        "place: a window that ends early": drawn(placed, 0),
        "random_roll": drawn(lambda g: hear(augment.random_roll(rows, LENGTHS, g)), 3),
        "random_gain (here 20 dB)": drawn(lambda g: hear(augment.random_gain(rows, 20.0, g)), 2),
        "random_low_pass": drawn(lambda g: hear(augment.random_low_pass(rows, 1.0, RATE, g))),
        "random_high_pass": drawn(lambda g: hear(augment.random_high_pass(rows, 1.0, RATE, g)), 5),
        "mix_up": drawn(lambda g: hear(augment.mix_up(rows, LENGTHS, TARGETS, 1.0, 10.0, g)[0]), 1),
        "random_background, 10 dB": drawn(background),
        "random_noise: white, 10 dB": drawn(noisy, 1),
        "random_noise: pink, 10 dB": drawn(noisy, 0),
        "warp_time": drawn(lambda g: augment.warp_time(log_mel, 60, g)[0], 3),
        "mask_spectrogram": drawn(lambda g: augment.mask_spectrogram(log_mel, 24, 96, g)[0], 14),
        "normalised": normalised[0],
        "noise_and_shift": drawn(lambda g: augment.noise_and_shift(normalised, g)[0], 5),
    }


def main() -> None:
    """Draw every panel on one sheet."""
    mpl.use("Agg")
    pictures = panels()
    sheet, axes = pyplot.subplots(4, 4, figsize=(10, 6), layout="constrained")
    for place, (title, log_mel) in zip(axes.flat, pictures.items(), strict=True):
        own = title in ("normalised", "noise_and_shift")
        low, high = (-1.2, 1.2) if own else (-16, 2)
        place.imshow(log_mel.T, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high)
        place.set_title(title, fontsize=9)
        place.set_xticks([0, 100, 200], ["0 s", "1 s", "2 s"], fontsize=7)
        place.set_yticks([])
    drawing = BytesIO()
    sheet.savefig(drawing, dpi=72)
    Image.open(drawing).convert("RGB").quantize(40).save(PATH, optimize=True)  # a third of the bytes
    print(f"wrote {PATH}")


if __name__ == "__main__":
    main()
