import json
import math
import pickle
import shutil

import pytest

import pixelclip_sdk
from pixelclip_sdk import Bundle, BundleError, ModelNotFoundError
from pixelclip_sdk.bundle import SCHEMA_VERSION
from pixelclip_sdk.models import available_models, find_bundle

LITE = available_models()["pixelclip-lite"]


@pytest.fixture
def copy(tmp_path):
    """A copy of the bundled model, to be damaged."""
    return shutil.copytree(LITE, tmp_path / "lite")


def rewrite(folder, change):
    manifest = folder / "bundle.json"
    fields = json.loads(manifest.read_text())
    change(fields)
    manifest.write_text(json.dumps(fields))


def test_the_bundled_model_is_whole():
    bundle = Bundle.open(LITE)
    bundle.verify()
    assert bundle.name == "pixelclip-lite"
    assert bundle.has_text_encoder
    assert bundle.size < 32e6
    listed = set(bundle.files) | {"bundle.json"}
    assert listed == {str(p.relative_to(LITE)) for p in LITE.rglob("*") if p.is_file()}


def test_the_manifest_survives_a_round_trip():
    bundle = Bundle.open(LITE)
    assert json.loads(json.dumps(bundle.manifest())) == json.loads((LITE / "bundle.json").read_text())


def test_a_name_or_a_folder_finds_a_bundle(copy):
    assert find_bundle("pixelclip-lite").path == LITE
    assert find_bundle(copy).path == copy
    assert find_bundle(str(copy)).path == copy


def test_a_name_wins_over_a_folder_here_and_says_so(copy, tmp_path, monkeypatch, caplog):
    here = copy.rename(tmp_path / "pixelclip-lite")
    monkeypatch.chdir(tmp_path)
    assert find_bundle("pixelclip-lite").path == LITE
    assert "for the other one write ./pixelclip-lite" in caplog.text
    caplog.clear()
    assert find_bundle("./pixelclip-lite").path.resolve() == here
    assert not caplog.text


def test_bundles_in_the_users_folder_go_by_name(copy, monkeypatch):
    monkeypatch.setenv("PIXELCLIP_HOME", str(copy.parent))
    assert find_bundle("lite").path == copy
    assert set(available_models()) == {"pixelclip-lite", "lite"}


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ModelNotFoundError, match="Did you mean 'pixelclip-lite'"):
        find_bundle("pixelclip-light")


def test_the_bundled_model_needs_no_home(monkeypatch):
    monkeypatch.delenv("PIXELCLIP_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no such user")))
    assert find_bundle("pixelclip-lite").path == LITE


def test_a_cache_that_cannot_be_read_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path / ("x" * 300)))  # Looking there fails even for root.
    assert find_bundle("pixelclip-lite").path == LITE
    with pytest.raises(ModelNotFoundError, match="no model"):
        find_bundle("x" * 300)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"has no bundle\.json"):
        find_bundle(tmp_path)


@pytest.mark.parametrize("name", ["image_encoder.onnx", "text_encoder.onnx", "tokenizer.json"])
def test_a_missing_file_is_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.open(copy)


def test_a_file_cut_short_is_refused(copy):
    path = copy / "image_encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="incomplete or was changed"):
        Bundle.open(copy)


def test_a_changed_byte_is_refused_before_the_file_is_used(copy):
    path = copy / "image_encoder.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="changed or damaged"):
        pixelclip_sdk.Segmenter.from_pretrained(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.update(schema_version=SCHEMA_VERSION + 1), "Upgrade pixelclip-sdk"),
        (lambda f: f.update(schema_version="one"), "schema_version is 'one'"),
        (lambda f: f.pop("schema_version"), "schema_version is None"),
        (lambda f: f.update(licence="x"), "unknown key 'licence'. Did you mean 'license'"),
        (lambda f: f["input"].update(depth=3), "unknown key 'input.depth'"),
        (lambda f: f.pop("grid"), "missing grid"),
        (lambda f: f.update(refine="edge"), "refine is 'edge'; expected 'edges' or 'off'"),
        (lambda f: f.update(refine=["edges"]), "refine is \"['edges']\"; expected 'edges' or 'off'"),
        (lambda f: f.update(grid=[4]), "grid is [4]"),
        (lambda f: f["input"].update(keep_aspect=False), "squashing needs one size"),
        (lambda f: f["input"].update(batch=0), "batch is 0"),
        (lambda f: f.update(templates=["no slot"]), "one {} each"),
        (lambda f: f.update(embedding_dim="many"), "embedding_dim is a str"),
        (lambda f: f.update(embedding_dim=0), "embedding_dim is 0"),
        (lambda f: f.update(embedding_dim=True), "embedding_dim is a bool"),
        (lambda f: f.update(templates=["a {} {"]), "one {} each"),
        (lambda f: f.update(templates=["a {} {x}"]), "one {} each"),
        (lambda f: f["input"].update(height=100), "positive multiple"),
        (lambda f: f["input"].update(height="320"), "input.height is a str; expected a int"),
        (lambda f: f["input"].update(fixed="false"), "input.fixed is a str"),
        (lambda f: f["input"].update(batch="1"), "input.batch is a str; expected a int or null"),
        (lambda f: f["files"]["tokenizer.json"].update(sha256=None), "tokenizer.json.sha256 is a NoneType"),
        (lambda f: f["files"].update({"../secret": {"size": 1, "sha256": ""}}), "outside the bundle"),
        (lambda f: f["files"].update({"x": 3}), "files.x is a int"),
        (lambda f: f["files"].pop("image_encoder.onnx"), "lists no image_encoder"),
        (lambda f: f.update(embedding_dim=10**9), "embedding_dim is 1000000000; expected 1 to 4096"),
        (lambda f: f["input"].update(height=32 * 10**9), "input.height is 32000000000; expected 1 to 65536"),
        (lambda f: f["input"].update(multiple=0), "input.multiple is 0"),
        (lambda f: f["input"].update(batch=10**4000), "input.batch is a huge number"),
        (lambda f: f.update(grid=[10**4000, 1]), "expected rows and columns"),
        (lambda f: f["files"]["tokenizer.json"].update(size=-1), "tokenizer.json.size is -1"),
        (lambda f: f.update(confidence=0.1), "confidence is a float; expected an object"),
        (lambda f: f["confidence"].update(temperature=0.0), "confidence.temperature is 0.0; expected 1e-6"),
        (lambda f: f["confidence"].update(temperature=math.nan), "confidence.temperature is nan"),
        (lambda f: f["confidence"].update(background_weight="1"), "confidence.background_weight is a str"),
        (lambda f: f["confidence"].pop("temperature"), "missing confidence.temperature"),
    ],
)
def test_a_wrong_manifest_is_refused(copy, change, said):
    rewrite(copy, change)
    with pytest.raises(BundleError) as error:
        Bundle.open(copy)
    assert said in str(error.value)


def test_a_manifest_without_refine_recommends_none(copy):
    rewrite(copy, lambda f: f.pop("refine"))
    assert Bundle.open(copy).refine == "off"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "\udcff", "[" * 100_000, '{"embedding_dim": ' + "9" * 5000 + "}"]
)
def test_a_manifest_that_is_no_json_object_is_refused(copy, content):
    (copy / "bundle.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError):
        Bundle.open(copy)


def test_an_unlisted_file_is_not_handed_out():
    with pytest.raises(BundleError, match=r"has no engine\.plan"):
        Bundle.open(LITE).file("engine.plan")


def test_a_manifest_of_gigabytes_is_not_read(copy):
    with (copy / "bundle.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match="expected at most 16777216"):
        Bundle.open(copy)


def test_a_bundle_cannot_be_changed():
    bundle = Bundle.open(LITE)
    for change in (
        lambda: bundle.files.update({}),
        lambda: bundle.files["tokenizer.json"].update(sha256=""),
        lambda: bundle.sources.append({}),
        lambda: bundle.sources[0].update(name="other"),
        lambda: bundle.verification.clear(),
    ):
        with pytest.raises(AttributeError):
            change()


def test_a_pickled_bundle_is_the_same():
    bundle = Bundle.open(LITE)
    assert pickle.loads(pickle.dumps(bundle)) == bundle


@pytest.mark.parametrize("size", [0, 767, 769, 385 * 768])
def test_a_damping_file_of_another_width_is_refused(copy, size):
    (copy / "damping.f16").write_bytes(bytes(size))
    rewrite(copy, lambda fields: fields["files"]["damping.f16"].update(size=size))
    with pytest.raises(BundleError, match=r"damping\.f16 has .* expected 1 to 384 rows of 768"):
        Bundle.open(copy).damping()


def test_a_bundle_may_have_no_damping(copy):
    (copy / "damping.f16").unlink()
    rewrite(copy, lambda fields: fields["files"].pop("damping.f16"))
    assert Bundle.open(copy).damping() is None
