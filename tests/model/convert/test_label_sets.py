"""Labels and statistics of published heads."""

import pytest

from model.convert.errors import LabelsError, MissingFlagError
from model.convert.label_sets import DATASETS, ESC50, choose_dataset, read_labels


@pytest.mark.parametrize("name", ["audioset", "esc50", "speech-commands"])
def test_labels_that_come_with_hark_are_as_many_as_the_classes(name):
    dataset = DATASETS[name]
    assert dataset.labels is not None
    assert len(dataset.labels()) == dataset.classes


def test_known_orders():
    assert [DATASETS["audioset"].labels().names[index] for index in (0, 74)] == ["Speech", "Dog"]
    assert (ESC50[0], ESC50[24], ESC50[47], ESC50[49]) == ("dog", "coughing", "airplane", "hand_saw")
    words = DATASETS["speech-commands"].labels().names
    assert (words[0], words[10], words[34]) == ("backward", "dog", "one")


@pytest.mark.parametrize(
    ("classes", "name"), [(527, "audioset"), (50, "esc50"), (35, "speech-commands"), (0, "audioset")]
)
def test_a_data_set_is_known_by_its_number_of_classes(classes, name):
    assert choose_dataset(None, classes) is DATASETS[name]


def test_a_flag_overrides_and_an_unknown_number_needs_it():
    assert choose_dataset("esc50", 13) is DATASETS["esc50"]
    with pytest.raises(MissingFlagError, match="no known data set has 13 classes; say --labels"):
        choose_dataset(None, 13)
    with pytest.raises(MissingFlagError, match="--dataset birds is unknown; choose from audioset"):
        choose_dataset("birds", 13)


def write(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_audiosets_own_layout_in_any_order(tmp_path):
    labels = read_labels(write(tmp_path, 'index,mid,display_name\n1,/m/09x0r,"Speech"\n0,/m/0bt9lr,Dog\n'))
    assert labels.names == ("Dog", "Speech")
    assert labels[0].parents == ("/m/068hy",)


@pytest.mark.parametrize("column", ["name", "label", "category", "class"])
def test_a_single_column_of_names(tmp_path, column):
    labels = read_labels(write(tmp_path, f"{column}\nrobin\nblackbird\n"))
    assert (labels.names, labels.mids) == (("robin", "blackbird"), ("robin", "blackbird"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows or no column"),
        ("bird\nrobin\n", "no rows or no column"),
        ("name\nrobin\nrobin\n", "repeated"),
        ("index,name\n0,robin\n2,wren\n", "does not number"),
        ("index,name\n0,robin\nx,wren\n", "not a whole number"),
        ("mid,name\n/m/1,\n", "empty"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, text, message):
    with pytest.raises(LabelsError, match=message):
        read_labels(write(tmp_path, text))


def test_a_missing_or_binary_file_is_one_clear_error(tmp_path):
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00name")
    for path in (tmp_path / "none.csv", tmp_path / "binary.csv"):
        with pytest.raises(LabelsError, match="cannot be read"):
            read_labels(path)
