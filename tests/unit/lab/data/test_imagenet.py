import shutil

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import ImageFolder

from fakes_data import FAKES, SYNSETS, flatten_imagenet
from fedlas._core.check import InputError
from fedlas.lab.data import load_dataset


@pytest.fixture
def root(tmp_path):
    return FAKES["imagenet"](tmp_path)


def load(root, **options):
    return load_dataset("imagenet", str(root), **{"partial": True} | options)


def test_is_what_torchvisions_image_folder_reads(root):
    source = load(root)
    for part, files in (("train", source.train), ("val", source.test)):
        theirs = ImageFolder(root / part)
        assert [str(files.path(row)) for row in range(len(files))] == [path for path, _ in theirs.samples]
        assert files.target.tolist() == theirs.targets
    assert source.classes == SYNSETS
    assert source.train.shape == (3, 224, 224)


def write_devkit(root, moved):
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    number = {SYNSETS[2]: 1, SYNSETS[0]: 2, SYNSETS[1]: 3}  # not in the order of the synsets, as in the real one
    rows = [(number[synset], synset, f"word {synset}", "", 0) for synset in number] + [(1001, "n00001740", "x", "", 2)]
    savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=kind)})
    lines = [str(number[synset]) for _, synset in sorted(moved.items())]
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(lines) + "\n")


def write_kaggle(root, moved):
    rows = [
        f"{name.removesuffix('.JPEG')},{synset} 1 2 3 4 {synset} 5 6 7 8 " for name, synset in reversed(moved.items())
    ]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))


def write_val_txt(root, moved):
    (root / "val.txt").write_text("".join(f"{name} {SYNSETS.index(synset)}\n" for name, synset in moved.items()))


def write_synset_lines(root, moved):
    lines = "\n".join(synset for _, synset in sorted(moved.items()))
    (root / "imagenet_2012_validation_synset_labels.txt").write_text(lines)


@pytest.mark.parametrize("write", [write_devkit, write_kaggle, write_val_txt, write_synset_lines])
def test_flat_validation_images_get_their_classes_from_a_file(root, write):
    expected = {load(root).test.path(row).name: int(load(root).test.target[row]) for row in range(6)}
    write(root, flatten_imagenet(root))
    source = load(root)
    found = {source.test.path(row).name: int(source.test.target[row]) for row in range(6)}
    assert found == expected
    (root / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    if write is write_synset_lines:
        with pytest.raises(InputError, match="a line for each validation image; got 6 lines"):
            load(root)
    else:
        with pytest.raises(InputError, match=r"every listed validation image must be there; got 5 in .* of 6"):
            load(root)


def test_flat_validation_images_without_such_a_file_say_which_would_do(root):
    flatten_imagenet(root)
    with pytest.raises(InputError, match=r"got 6 images in .*Put the extracted development kit.*LOC_val_solution\.csv"):
        load(root)
    (root / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG n99999999\n")
    with pytest.raises(InputError, match=r"every validation image must have a class that train has; got none for 6"):
        load(root)


def test_a_damaged_devkit_is_named(root):
    write_devkit(root, flatten_imagenet(root))
    truth = root / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("1\n2\n3\n4\n")
    with pytest.raises(InputError, match="a label for each validation image; got 4"):
        load(root)
    truth.write_text("1\n2\n3\n1\n2\n77\n")
    with pytest.raises(InputError, match=r"numbers of meta\.mat; got '77'"):
        load(root)
    (truth.parent / "meta.mat").write_bytes(b"")
    with pytest.raises(InputError, match=r"meta\.mat \(it is empty\)"):
        load(root)


def test_names_come_from_a_file_beside_the_images(root):
    (root / "LOC_synset_mapping.txt").write_text("n01443537 goldfish, Carassius\nn01629819 crane, x\nn01641577 crane\n")
    assert load(root).classes == ("goldfish", "crane (n01629819)", "crane (n01641577)")


def test_a_whole_imagenet_is_named_by_torchvision(tmp_path):
    """A thousand class folders with one tiny file each."""
    for row in range(1000):
        for part in ("train", "val"):
            folder = tmp_path / part / f"n{row:08d}"
            folder.mkdir(parents=True)
            (folder / "0.JPEG").write_bytes(b"")
    source = load(tmp_path)
    assert (source.classes[1], source.classes[134]) == ("goldfish", "crane bird")
    assert len(set(source.classes)) == 1000


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: shutil.rmtree(root / "val" / SYNSETS[0]), "val must have .* none for 1, the first n01443537"),
        (lambda root: empty(root / "train" / SYNSETS[0]), "train must have images of each of the 3 classes"),
        (lambda root: (root / "train" / "n01.tar").write_bytes(b""), r"must be extracted; got 1 in .*for f in \*\.tar"),
        (lambda root: shutil.rmtree(root / "val"), "without val. The archive was extracted only in part"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(root, change, words):
    change(root)
    with pytest.raises(InputError, match=words):
        load(root)


def test_a_part_of_imagenet_must_be_asked_for(root):
    with pytest.raises(InputError, match=r"1,281,167 images in train.*got 3 classes, 18 and 6 .*data\.partial=true"):
        load(root, partial=False)


def test_archives_and_kaggles_folders(root, tmp_path):
    (tmp_path / "deep" / "ILSVRC" / "Data").mkdir(parents=True)
    (tmp_path / "deep" / "ILSVRC" / "Data" / "CLS-LOC").mkdir()
    for part in ("train", "val"):
        (root / part).rename(tmp_path / "deep" / "ILSVRC" / "Data" / "CLS-LOC" / part)
    write_kaggle(tmp_path / "deep", flatten_imagenet(tmp_path / "deep" / "ILSVRC" / "Data" / "CLS-LOC"))
    assert len(load(tmp_path / "deep").test) == 6
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "ILSVRC2012_img_train.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"not extracted yet\. Extract it: tar -xf .*img_train\.tar"):
        load(tmp_path / "new")
