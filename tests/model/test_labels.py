"""Label sets, AudioSet's labels as published, and the ontology."""

import csv
import json

import pytest

from model.labels import LABEL_DATA, Label, LabelSet, Node, Ontology, audioset_labels, load_ontology

DOG, BARK, BELL, GROWLING = "/m/0bt9lr", "/m/05tny_", "/m/0395lw", "/m/0ghcn6"
ROWS = [
    {"index": 0, "mid": BARK, "name": "Bark", "parents": [DOG]},
    {"index": 1, "mid": "door knock", "name": "door knock", "parents": []},
]


def test_audioset_has_527_labels_in_the_published_order():
    labels = audioset_labels()
    assert len(labels) == 527
    assert labels[0] == Label(0, "/m/09x0r", "Speech", ("/m/09l8g",))
    assert labels[74].name == "Dog"
    assert labels[526].name == "Field recording"


def test_audioset_names_are_those_of_the_published_file():
    with (LABEL_DATA / "audioset_labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["display_name"] for row in rows] == list(audioset_labels().names)
    assert [row["mid"] for row in rows] == list(audioset_labels().mids)
    assert "Male speech, man speaking" in audioset_labels().names


def test_every_audioset_label_is_in_the_ontology_under_the_same_name():
    ontology = load_ontology()
    assert len(ontology) == 632
    assert all(ontology.name(label.mid) == label.name for label in audioset_labels())


def test_the_ontology_knows_both_directions():
    ontology = load_ontology()
    assert DOG in ontology
    assert ontology.parents(BARK) == (DOG,)
    assert BARK in ontology.children(DOG)
    assert {ontology.name(mid) for mid in ontology.parents(BELL)} == {"Musical instrument", "Sounds of things"}
    assert ontology.node("/m/0dgw9r").restrictions == ("abstract",)


def test_ancestors_come_nearest_first_and_once():
    names = [load_ontology().name(mid) for mid in load_ontology().ancestors(GROWLING)]
    assert names[-1] == "Animal"
    assert names[:2] == ["Dog", "Cat"]
    assert len(set(names)) == len(names) == 7
    assert load_ontology().ancestors("/m/0jbk") == ()


def test_ancestors_survive_a_loop():
    loop = Ontology([Node("a", "A", ("b",), ("b",), ()), Node("b", "B", ("a",), ("a",), ())])
    assert set(loop.ancestors("a")) == {"a", "b"}


def test_an_unknown_mid_is_a_key_error_that_names_it():
    for ask in (load_ontology().name, load_ontology().parents, load_ontology().children, load_ontology().ancestors):
        with pytest.raises(KeyError, match="/m/nothing"):
            ask("/m/nothing")


def test_index_of_takes_mids_and_names():
    labels = audioset_labels()
    assert labels.index_of(DOG) == labels.index_of("Dog") == 74
    with pytest.raises(KeyError, match="Unicorn"):
        labels.index_of("Unicorn")


def test_a_mid_goes_before_a_name_and_the_first_name_before_later_ones():
    labels = LabelSet((Label(0, "a", "same"), Label(1, "b", "same"), Label(2, "same", "c")))
    assert labels.index_of("same") == 2
    assert LabelSet(labels[:2]).index_of("same") == 0


def test_from_mids_fills_in_what_audioset_knows():
    labels = LabelSet.from_mids([BARK, "door knock"])
    assert labels == LabelSet.from_rows(ROWS)
    assert labels.mids == (BARK, "door knock")
    assert labels.names == ("Bark", "door knock")


def test_a_label_set_is_a_sequence_and_equal_by_value():
    labels = LabelSet.from_rows(ROWS)
    assert [label.name for label in labels] == ["Bark", "door knock"]
    assert labels[-1].index == 1
    assert labels != LabelSet.from_mids([BARK])
    assert hash(labels) == hash(LabelSet.from_rows(ROWS))
    assert len(LabelSet(())) == 0


def test_rows_and_files_bring_back_the_same_labels(tmp_path):
    labels = audioset_labels()
    assert LabelSet.from_rows(labels.to_rows()) == labels
    assert json.loads(json.dumps(labels.to_rows())) == labels.to_rows()
    labels.to_json(tmp_path / "labels.json")
    assert LabelSet.from_json(tmp_path / "labels.json") == labels


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"index": 1}, "numbered 0, 1, 2"),
        ({"index": "0"}, "not a whole number"),
        ({"mid": "door knock"}, "repeated: door knock"),
        ({"name": ""}, "not empty"),
        ({"mid": None}, "not empty"),
        ({"parents": DOG}, "list of mids"),
        ({"colour": "red"}, "exactly the keys"),
    ],
)
def test_rows_that_make_no_label_set_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        LabelSet.from_rows([ROWS[0] | change, ROWS[1]])


def test_a_row_without_a_key_is_refused():
    with pytest.raises(ValueError, match="Label row 1 must have exactly the keys"):
        LabelSet.from_rows([ROWS[0], {"index": 1, "mid": "x", "name": "x"}])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"[", "is not a JSON file"), (b"\xff\xfe", "is not a JSON file"), (b"{}", "list of labels"), (b"[1]", "row 0")],
)
def test_files_that_hold_no_labels_are_refused(tmp_path, content, sentence):
    (tmp_path / "labels.json").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        LabelSet.from_json(tmp_path / "labels.json")


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        LabelSet.from_json(tmp_path / "labels.json")
