"""Patch embeddings, grids and the resampling of positional tables and kernels."""

import pytest
import torch

from model.patches import (
    PatchEmbed,
    TimeMajorPatchEmbed,
    check_log_mel,
    cut_or_resize_positions,
    patch_grid,
    resize_patch_kernel,
    resize_positions,
    sine_cosine_positions,
)
from tests.golden import assert_close, load_golden


@pytest.mark.parametrize(
    ("frames", "stride", "grid"),
    [(1024, 10, (12, 101)), (512, 10, (12, 50)), (128, 10, (12, 12)), (1024, 12, (10, 85)), (1024, 16, (8, 64))],
)
def test_patch_grid_counts_what_the_ast_paper_counts(frames, stride, grid):
    assert patch_grid(128, frames, (16, 16), (stride, stride)) == grid


@pytest.mark.parametrize(("mels", "frames", "stride"), [(8, 1024, 10), (128, 15, 10), (128, 1024, 0)])
def test_patch_grid_refuses_impossible_sizes(mels, frames, stride):
    with pytest.raises(ValueError, match=r"smaller than one patch|must be positive"):
        patch_grid(mels, frames, (16, 16), (stride, stride))


def test_tokens_run_along_time_first():
    embed = PatchEmbed(1, (2, 2), (2, 2))
    torch.nn.init.constant_(embed.proj.weight, 0.25)
    torch.nn.init.zeros_(embed.proj.bias)
    log_mel = torch.zeros(1, 6, 4)  # 3 time cells, 2 frequency cells
    log_mel[0, 4:, :2] = 1.0  # last in time, lowest in frequency
    assert embed(log_mel).flatten().tolist() == [0, 0, 1, 0, 0, 0]


def test_time_major_tokens_run_along_frequency_first():
    embed = TimeMajorPatchEmbed(1, (2, 2))
    torch.nn.init.constant_(embed.proj.weight, 0.25)
    torch.nn.init.zeros_(embed.proj.bias)
    log_mel = torch.zeros(1, 6, 4)
    log_mel[0, 4:, :2] = 1.0
    assert embed(log_mel).flatten().tolist() == [0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("embed", [PatchEmbed(5, (4, 3), (2, 3)), TimeMajorPatchEmbed(5, (4, 3))])
def test_pixels_are_what_the_kernel_sees(embed):
    log_mel = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    tokens = embed.pixels(log_mel) @ embed.proj.weight.flatten(1).T + embed.proj.bias
    assert_close(embed(log_mel), tokens, 1e-5)


@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize(("source", "grid"), [("deit", "source_imagenet_grid"), ("audioset", "source_audioset_grid")])
def test_ast_positions_are_cut_or_resized_as_upstream_does(source, grid, case):
    golden = load_golden("ast_pos_embed")
    kind = {"deit": "imagenet", "audioset": "audioset"}[source]
    target = tuple(golden.config[f"from_{kind}"][case]["grid"])
    table = golden[f"{source}.pos_embed"][:, 2:]
    fitted = cut_or_resize_positions(table, tuple(golden.config[grid]), target)
    assert_close(fitted, golden[f"{kind}{case}.pos_embed"][:, 2:])


@pytest.mark.parametrize("name", ["ssast_patch", "ssast_frame"])
def test_ssast_positions_are_cut_or_resized_as_upstream_does(name):
    golden = load_golden(name)
    source, target = tuple(golden.config["pretrain_grid"]), tuple(golden.config["grid"])
    fitted = cut_or_resize_positions(golden["pretrained.module.v.pos_embed"][:, 2:], source, target)
    assert_close(fitted, golden.state["v.pos_embed"][:, 2:])


@pytest.mark.parametrize("case", range(4))
def test_aum_positions_are_resized_with_antialias(case):
    golden = load_golden("aum_resample")
    target = tuple(golden.config["targets"][case]["grid"])
    resized = resize_positions(golden.state["pos_embed.pos_embed"][:, 1:], (8, 64), target, antialias=True)
    assert_close(resized, golden[f"dst{case}.pos_embed.pos_embed"][:, 1:])


def test_a_table_is_refused_on_the_wrong_grid():
    with pytest.raises(ValueError, match="10 rows does not fit a grid of 3 x 3"):
        resize_positions(torch.zeros(1, 10, 4), (3, 3), (2, 2), antialias=False)


def test_aum_kernel_is_resized_by_pseudo_inverse():
    golden = load_golden("aum_resample")
    resized = resize_patch_kernel(golden.state["patch_embed.proj.weight"], (8, 8))
    assert_close(resized, golden["dst2.patch_embed.proj.weight"])


def test_an_enlarged_kernel_gives_enlarged_patches_the_same_tokens():
    kernel = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    patch = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    enlarged = torch.nn.functional.interpolate(patch, (16, 16), mode="bilinear")
    tokens = (resize_patch_kernel(kernel, (16, 16)) * enlarged).sum(dim=(1, 2, 3))
    assert_close(tokens, (kernel * patch).sum(dim=(1, 2, 3)), 1e-3)


def test_sine_cosine_positions_are_those_of_ssam():
    assert_close(sine_cosine_positions(32, (5, 50)), load_golden("ssam_encoder").state["pos_embed"][:, 1:], 1e-6)


def test_sine_cosine_positions_need_a_width_of_four_parts():
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_cosine_positions(30, (5, 50))


@pytest.mark.parametrize("shape", [(2, 100), (2, 99, 128), (2, 100, 80)])
def test_log_mel_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"log-mel must be \(B, 100, 128\)"):
        check_log_mel(torch.zeros(shape), 100, 128)


def test_log_mel_of_any_length_passes_where_any_will_do():
    check_log_mel(torch.zeros(2, 37, 80), None, 80)
