"""Log-mel front ends: the published ones to their tolerances, and what batching, padding and length may not change."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.features import (
    AUDIOSET_FBANK,
    ESC50_FBANK,
    SPEECH_COMMANDS_FBANK,
    SSAM_LOG_MEL,
    FeatureConfig,
    LogMel,
)
from model.mel_filters import htk_mel_filters, kaldi_mel_filters
from tests.golden import load_golden

FBANK_TOLERANCE = (1e-3, 1e-5)  # largest and mean difference after normalisation, as fixtures.json suggests
LOG_MEL_TOLERANCE = (5e-4, 1e-5)
RAW_FBANK_TOLERANCE = (1e-2, 1e-4)
RAW_LOG_MEL_TOLERANCE = (1e-3, 1e-4)
BOTH = [pytest.param(AUDIOSET_FBANK, id="fbank"), pytest.param(SSAM_LOG_MEL, id="log_mel")]
DATASETS = [
    ("frontend_1s", SPEECH_COMMANDS_FBANK),
    ("frontend_5s", ESC50_FBANK),
    ("frontend_10p3s", AUDIOSET_FBANK),
]


def assert_within(actual: Tensor, expected: Tensor, tolerance: tuple[float, float]) -> None:
    assert actual.shape == expected.shape
    difference = (actual - expected).abs()
    assert difference.max() <= tolerance[0]
    assert difference.mean() <= tolerance[1]


def noise(samples: int, seed: int = 0) -> Tensor:
    """White noise (samples,) at a tenth of full scale."""
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def batch_of(waveforms: list[Tensor], samples: int, filler: float = 0.0) -> tuple[Tensor, Tensor]:
    """Rows (B, samples) with `filler` behind each waveform, and their lengths (B,)."""
    batch = torch.full((len(waveforms), samples), filler)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return batch, torch.tensor([len(waveform) for waveform in waveforms])


# --- equal to the published front ends ---


@pytest.mark.parametrize(("case", "config"), DATASETS)
@pytest.mark.parametrize("subtract_mean", [True, False])
def test_fbank_equals_the_official_loader(case, config, subtract_mean):
    golden = load_golden(case)
    features = LogMel(replace(config, subtract_waveform_mean=subtract_mean))
    assert_within(features(golden["waveform"][None])[0], golden["ast_input"], FBANK_TOLERANCE)


@pytest.mark.parametrize("case", ["frontend_1s", "frontend_5s"])
def test_log_mel_equals_ssam(case):
    golden = load_golden(case)
    features = LogMel(replace(SSAM_LOG_MEL, frames=golden["ssam_logmel"].shape[2]))
    assert_within(features(golden["waveform"][None]), golden["ssam_logmel"][0], LOG_MEL_TOLERANCE)


def test_log_mel_equals_ssams_feature_extraction():
    golden = load_golden("ssam_hear")
    features = LogMel(replace(SSAM_LOG_MEL, frames=golden["logmel0"].shape[2]))
    assert_within(features(golden["wave0"]), golden["logmel0"][0], LOG_MEL_TOLERANCE)


def test_unnormalised_equals_the_raw_values():
    golden = load_golden("frontend_1s")
    fbank = LogMel(replace(SPEECH_COMMANDS_FBANK, subtract_waveform_mean=True)).unnormalised(golden["waveform"][None])
    assert_within(fbank[0, :98], golden["ast_fbank_raw"], RAW_FBANK_TOLERANCE)
    assert not fbank[0, 98:].any()
    log_mel = LogMel(SSAM_LOG_MEL).unnormalised(golden["waveform"][None])
    assert_within(log_mel, golden["ssam_logmel_raw"].transpose(1, 2), RAW_LOG_MEL_TOLERANCE)


@pytest.mark.parametrize("name", ["input_values", "input_values_numpy"])
def test_fbank_equals_hugging_face(name):
    golden = load_golden("ast_hf_features")
    features = LogMel(replace(AUDIOSET_FBANK, frames=128))
    assert_within(features(golden["waveform"][None]), golden[name], FBANK_TOLERANCE)


@pytest.mark.parametrize("case", ["second_longer", "second_shorter"])
def test_mixed_waveforms_give_the_official_mix_up(case):
    """Training mixes waveforms before this module; that must be enough to reproduce the official mix-up."""
    golden = load_golden("frontend_mixup")
    first, second = golden[f"{case}.waveform1"], golden[f"{case}.waveform2"]
    share = golden[f"{case}.lambda"].item()
    fitted = torch.zeros_like(first)
    fitted[: len(second)] = (second - second.mean())[: len(first)]
    mixed = share * (first - first.mean()) + (1 - share) * fitted
    features = LogMel(replace(AUDIOSET_FBANK, frames=128, subtract_waveform_mean=True))
    assert_within(features.unnormalised(mixed[None])[0], golden[f"{case}.fbank"], RAW_FBANK_TOLERANCE)


def test_windows_and_mel_filters_are_the_published_ones():
    golden = load_golden("frontend_filters")
    pairs = [
        (kaldi_mel_filters(128, 512, 16000).T, golden["kaldi_mel_128x257"], 2e-5),
        (htk_mel_filters(80, 400, 16000), golden["ssam_mel_201x80"], 2e-5),
        (LogMel(AUDIOSET_FBANK).stft_window[:400], golden["kaldi_window_400"], 1e-6),
        (LogMel(SSAM_LOG_MEL).stft_window, golden["ssam_window_400"], 1e-6),
    ]
    for ours, published, tolerance in pairs:
        torch.testing.assert_close(ours.float(), published, atol=tolerance, rtol=0)
    assert not LogMel(AUDIOSET_FBANK).stft_window[400:].any()
    assert not kaldi_mel_filters(128, 512, 16000)[:, 3].any()  # the published front end's empty filter


# --- nothing but the row itself decides its result ---


@pytest.mark.parametrize("config", [*BOTH, replace(AUDIOSET_FBANK, subtract_waveform_mean=True)])
@pytest.mark.parametrize("filler", [0.0, 0.3])
def test_a_row_does_not_depend_on_its_company_or_on_the_padding(config, filler):
    waveforms = [noise(samples, seed) + 0.01 for seed, samples in enumerate((48000, 31840, 16001, 12345, 700, 401))]
    features = LogMel(replace(config, frames=200))
    together = features(*batch_of(waveforms, 52000, filler))
    for row, waveform in zip(together, waveforms, strict=True):
        torch.testing.assert_close(row, features(waveform[None])[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", BOTH)
def test_lengths_default_to_the_whole_waveform(config):
    features = LogMel(config)
    waveforms = torch.stack([noise(20000), noise(20000, 1)])
    assert torch.equal(features(waveforms), features(waveforms, torch.tensor([20000, 20000])))


@pytest.mark.parametrize("config", BOTH)
def test_leading_frames_do_not_depend_on_what_follows(config):
    """A cut keeps the first frames as they are (SSAM standardises first, so only its raw frames can be compared)."""
    waveform = noise(48000)
    long = LogMel(config).unnormalised(waveform[None])
    short = LogMel(config).unnormalised(waveform[None, :32000])
    torch.testing.assert_close(long[:, :190], short[:, :190], atol=1e-6, rtol=0)


# --- lengths and padding ---


def test_fbank_counts_whole_frames_only():
    seconds = torch.tensor([1, 5, 10, 10.3])
    counts = LogMel(AUDIOSET_FBANK).frame_counts((seconds * 16000).long())
    assert counts.tolist() == [98, 498, 998, 1028]
    assert LogMel(AUDIOSET_FBANK).frame_counts(torch.tensor([0, 399, 400, 559, 560])).tolist() == [0, 0, 1, 1, 2]


def test_log_mel_counts_centred_frames():
    counts = LogMel(SSAM_LOG_MEL).frame_counts(torch.tensor([0, 200, 201, 319, 320, 16000, 31840, 32000]))
    assert counts.tolist() == [0, 0, 2, 2, 3, 101, 200, 201]


@pytest.mark.parametrize("config", BOTH)
def test_window_samples_fill_the_frames_exactly(config):
    features = LogMel(config)
    samples = config.window_samples
    assert features.frame_counts(torch.tensor([samples - 1, samples])).tolist() == [config.frames - 1, config.frames]


def test_fbank_padding_holds_the_normalised_zero():
    log_mel = LogMel(AUDIOSET_FBANK)(noise(16000)[None])
    assert log_mel.shape == (1, 1024, 128)
    torch.testing.assert_close(log_mel[0, 98:], torch.full((926, 128), 4.2677393 / (2 * 4.5689974)))


def test_log_mel_padding_is_zero_and_the_rest_is_standardised():
    log_mel = LogMel(SSAM_LOG_MEL)(noise(16000)[None])
    assert log_mel.shape == (1, 200, 80)
    assert not log_mel[:, 101:].any()
    assert log_mel[:, :101].mean().abs() < 1e-5
    assert log_mel[:, :101].std() == pytest.approx(1.0, abs=1e-5)


def test_log_mel_standardises_by_the_whole_waveform_before_the_cut():
    waveform = torch.cat([noise(32000), 0.01 * noise(32000, 1)])
    whole = LogMel(replace(SSAM_LOG_MEL, frames=401))(waveform[None])
    assert torch.equal(LogMel(SSAM_LOG_MEL)(waveform[None]), whole[:, :200])


def test_biased_and_unbiased_deviation_differ_by_their_divisor():
    waveform = noise(16000)[None]
    unbiased = LogMel(SSAM_LOG_MEL)(waveform)
    biased = LogMel(replace(SSAM_LOG_MEL, unbiased_std=False))(waveform)
    cells = 101 * 80
    torch.testing.assert_close(biased, unbiased * math.sqrt(cells / (cells - 1)))


@pytest.mark.parametrize("config", BOTH)
@pytest.mark.parametrize("samples", [0, 1, 159, 200, 399])
def test_a_waveform_too_short_for_a_frame_is_padding(config, samples):
    features = LogMel(config)
    log_mel = features(noise(samples)[None])
    if features.frame_counts(torch.tensor([samples])).item() == 0:
        nothing = features(torch.zeros(1, 20000), torch.tensor([0]))
        assert torch.equal(log_mel, nothing)
    assert log_mel.shape == (1, config.frames, config.mels)
    assert log_mel.isfinite().all()


@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_a_constant_waveform_stays_quiet(level):
    """Digital silence standardised naively is rounding noise over 1e-8, up to 100 in every cell."""
    waveform = torch.full((1, 32000), level)
    fbank = LogMel(replace(AUDIOSET_FBANK, frames=198)).unnormalised(waveform)
    torch.testing.assert_close(fbank, torch.full((1, 198, 128), math.log(2**-23)))
    if level == 0.0:
        assert not LogMel(SSAM_LOG_MEL)(waveform).any()


def test_the_mean_of_the_valid_samples_is_subtracted():
    """Only what lies in the valid part counts, and an offset then changes nothing."""
    features = LogMel(replace(AUDIOSET_FBANK, frames=98, subtract_waveform_mean=True))
    waveform = noise(16000)
    waveforms, lengths = batch_of([waveform, waveform + 0.25], 30000, filler=0.7)
    plain, raised = features(waveforms, lengths)
    assert_within(raised, plain, FBANK_TOLERANCE)


# --- as a module ---


def test_the_front_end_saves_nothing():
    assert LogMel(AUDIOSET_FBANK).state_dict() == {}


@pytest.mark.parametrize("config", BOTH)
def test_autocast_does_not_reach_inside(config):
    waveform = noise(16000)[None]
    features = LogMel(config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = features(waveform)
    assert torch.equal(inside, features(waveform))


@pytest.mark.parametrize("config", BOTH)
def test_gradients_reach_the_waveform(config):
    waveform = noise(16000)[None].requires_grad_()
    LogMel(config)(waveform).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("config", BOTH)
def test_the_gpu_gives_the_same(config):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    waveforms, lengths = batch_of([noise(40000), noise(12345, 1), noise(100, 2)], 48000)
    features = LogMel(config)
    expected = features(waveforms, lengths)
    actual = features.cuda()(waveforms.cuda(), lengths)
    assert_within(actual.cpu(), expected, FBANK_TOLERANCE)


@pytest.mark.parametrize(
    "waveforms",
    [torch.zeros(16000), torch.zeros(1, 1, 16000), torch.zeros(0, 16000), torch.zeros(1, 16000, dtype=torch.int16)],
)
def test_other_waveforms_are_refused(waveforms):
    with pytest.raises(ValueError, match="must be float32 of shape"):
        LogMel(AUDIOSET_FBANK)(waveforms)


def test_lengths_must_match_the_batch():
    with pytest.raises(ValueError, match="one per waveform"):
        LogMel(AUDIOSET_FBANK)(torch.zeros(2, 16000), torch.tensor([16000]))


# --- configuration ---


@pytest.mark.parametrize("config", BOTH)
def test_a_config_survives_its_dictionary(config):
    assert FeatureConfig.from_dict(config.to_dict()) == config


def test_unknown_and_missing_settings_are_named():
    settings = AUDIOSET_FBANK.to_dict()
    with pytest.raises(ValueError, match="Unknown feature settings: dither, hop"):
        FeatureConfig.from_dict(settings | {"hop": 160, "dither": 0.0})
    del settings["std"], settings["mels"]
    with pytest.raises(ValueError, match="Missing feature settings: mels, std"):
        FeatureConfig.from_dict(settings)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "mfcc"}, "'fbank' or 'log_mel', not 'mfcc'"),
        ({"sample_rate": 44100}, "defined at 16000 Hz"),
        ({"frames": 0}, "frames must be a whole number"),
        ({"mels": 12.5}, "mels must be a whole number"),
        ({"subtract_waveform_mean": "yes"}, "must be true or false"),
        ({"mean": None}, "needs a finite number as mean"),
        ({"std": math.nan}, "needs a finite number as std"),
        ({"std": 0.0}, "std above 0"),
        ({"kind": "log_mel"}, "mean and std must be None"),
        ({"kind": "log_mel", "mean": None, "std": None, "subtract_waveform_mean": True}, "does not subtract"),
    ],
)
def test_impossible_settings_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        FeatureConfig.from_dict(AUDIOSET_FBANK.to_dict() | change)
