"""Names of models: bundled, in the user's folder, or published and not on this machine."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pixelclip_sdk import Bundle, BundleError, ModelNotFoundError, Segmenter
from pixelclip_sdk.catalogue import CATALOGUE
from pixelclip_sdk.models import BUNDLED, available_models, cache_folder, find_bundle

LITE = BUNDLED / "pixelclip-lite"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_published_model_that_is_not_here_says_exactly_how_to_get_it(cache, name):
    with pytest.raises(ModelNotFoundError) as error:
        Segmenter.from_pretrained(name)
    said, model = str(error.value), CATALOGUE[name]
    assert said.startswith(f"the model {name} is not on this machine.\n")
    assert f"  pixelclip pull {name}\n" in said
    assert f"  python export/to_onnx.py --model {name} --out {cache / name}\n" in said
    assert f"https://huggingface.co/{model.repository}/resolve/main/{model.files[0]}" in said
    assert f"about {model.megabytes} MB" in said
    assert "licence MIT" in said
    assert 'pip install -e ".[export]"' in said
    assert "--checkpoint FILE" in said
    assert "Did you mean" not in said


@pytest.mark.parametrize(
    ("name", "hint"), [("pixelclip-light", "pixelclip-lite"), ("pixelclip-vit-b-16", "pixelclip-vit-b16")]
)
@pytest.mark.usefixtures("cache")
def test_a_misspelt_name_gets_the_nearest_and_all_names(name, hint):
    with pytest.raises(ModelNotFoundError, match=f"Did you mean '{hint}'") as error:
        find_bundle(name)
    assert "on this machine pixelclip-lite; to download with `pixelclip pull NAME`: pixel" in str(error.value)


def test_a_model_in_the_users_folder_goes_by_its_name(cache):
    shutil.copytree(LITE, cache / "clip-vit-b16")
    assert find_bundle("clip-vit-b16").path == cache / "clip-vit-b16"
    assert list(available_models()) == ["clip-vit-b16", "pixelclip-lite"]


def test_the_bundled_model_is_not_replaced_by_one_of_its_name(cache, caplog):
    shutil.copytree(LITE, cache / "pixelclip-lite")
    with caplog.at_level(logging.WARNING):
        assert find_bundle("pixelclip-lite").path == LITE
    assert available_models()["pixelclip-lite"] == LITE
    assert f"for the other one write {cache / 'pixelclip-lite'}" in caplog.text
    assert find_bundle(cache / "pixelclip-lite").path == cache / "pixelclip-lite"


def test_without_a_home_folder_nothing_in_the_current_folder_is_a_model(tmp_path, monkeypatch):
    monkeypatch.delenv("PIXELCLIP_HOME", raising=False)
    monkeypatch.setenv("HOME", "relative/home")
    monkeypatch.chdir(tmp_path)
    for place in (".cache/pixelclip", "~/.cache/pixelclip", "relative/home/.cache/pixelclip"):
        shutil.copytree(LITE, tmp_path / place / "pixelclip-lite")
        shutil.copytree(LITE, tmp_path / place / "mine")
    assert cache_folder() is None
    assert available_models() == {"pixelclip-lite": LITE}
    assert find_bundle("pixelclip-lite").path == LITE
    with pytest.raises(ModelNotFoundError):
        find_bundle("mine")
    with pytest.raises(ModelNotFoundError, match="pixelclip pull clip-vit-b16"):
        find_bundle("clip-vit-b16")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="becomes a user without an entry")
def test_a_user_without_an_entry_and_without_home_has_no_cache(tmp_path):
    code = (
        "import os; from pixelclip_sdk.models import cache_folder, find_bundle\n"
        "os.setuid(54321); os.environ.pop('HOME', None); os.environ.pop('PIXELCLIP_HOME', None)\n"
        "print(cache_folder(), find_bundle('pixelclip-lite').name)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "None pixelclip-lite\n", result.stderr


def test_the_users_folder_is_absolute_and_its_tilde_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIXELCLIP_HOME", "~/models")
    assert cache_folder() == tmp_path / "models"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIXELCLIP_HOME", "here")
    assert cache_folder() == tmp_path / "here"


@pytest.mark.parametrize("by_name", [True, False])
def test_reading_a_bundle_that_was_set_aside_changes_nothing_and_says_what_to_do(cache, by_name):
    aside = Path(shutil.copytree(LITE, cache / ".mine.old"))
    before = sorted(cache.rglob("*"))
    with pytest.raises(BundleError, match="an export was killed") as error:
        find_bundle("mine" if by_name else cache / "mine")
    assert f"is in {aside}. Run the export again, or rename that folder to mine." in str(error.value)
    with pytest.raises(BundleError, match="an export was killed"):
        Bundle.open(cache / "mine")
    assert "mine" not in available_models()
    assert ".mine.old" not in available_models()
    assert sorted(cache.rglob("*")) == before
