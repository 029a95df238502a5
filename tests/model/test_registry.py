"""Names lead to checkpoints and backbones, or to one clear error."""

from pathlib import Path

import pytest

from model.registry import (
    BACKBONES,
    DEFAULT_MODEL,
    PRETRAINED,
    UnknownModelError,
    build_network,
    bundled_models,
    config_type,
    find_checkpoint,
)


def test_the_default_model_is_bundled_and_comes_first() -> None:
    assert bundled_models()[0] == DEFAULT_MODEL
    assert find_checkpoint(DEFAULT_MODEL) == PRETRAINED / DEFAULT_MODEL


def test_a_path_to_a_checkpoint_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert find_checkpoint(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["no-such-model", "../pretrained", "", "/nonexistent"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownModelError, match=DEFAULT_MODEL):
        find_checkpoint(name)


def test_an_unknown_backbone_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match="aum"):
        build_network("resnet", {})
    with pytest.raises(UnknownModelError, match="aum"):
        config_type("resnet")


def test_every_backbone_is_where_the_registry_says() -> None:
    for name, backbone in BACKBONES.items():
        path = Path(*backbone.module.split(".")).with_suffix(".py")
        source = (Path(__file__).parents[2] / path).read_text()
        assert f"class {backbone.network}" in source
        assert f"class {backbone.config}" in source
        assert config_type(name).__name__ == backbone.config
