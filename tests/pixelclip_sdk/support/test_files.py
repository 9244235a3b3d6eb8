from pixelclip_sdk.support.files import files_below
from pixelclip_sdk.support.images import image_suffixes


def test_files_at_any_depth_behind_links_and_none_twice(tmp_path):
    photos = tmp_path / "photos"
    elsewhere = tmp_path / "elsewhere"
    for path in ("a.jpg", "deep/er/b.PNG", "notes.txt", ".hidden.jpg", ".trash/c.jpg"):
        (photos / path).parent.mkdir(parents=True, exist_ok=True)
        (photos / path).touch()
    elsewhere.mkdir()
    (elsewhere / "d.tif").touch()
    (photos / "linked").symlink_to(elsewhere)
    (photos / "deep" / "round").symlink_to(photos)  # Would go round for ever.
    found = sorted(path.relative_to(photos).as_posix() for path in files_below(photos, image_suffixes()))
    assert found == ["a.jpg", "deep/er/b.PNG", "linked/d.tif"]


def test_a_folder_that_is_not_there_has_no_files(tmp_path):
    assert not list(files_below(tmp_path / "none", image_suffixes()))
