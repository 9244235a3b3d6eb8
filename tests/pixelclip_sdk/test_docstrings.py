"""Every public name has a docstring, and the examples in docstrings run offline."""

import doctest
import inspect

import pytest

import pixelclip_sdk

OBJECTS = {name: getattr(pixelclip_sdk, name) for name in pixelclip_sdk.__all__ if name != "__version__"}
# Errors need no example, nor do objects that another function makes.
WITHOUT_EXAMPLE = {"FrameInfo", "VideoWriter"}
SHOWN = [
    name
    for name, value in OBJECTS.items()
    if name not in WITHOUT_EXAMPLE and not (isinstance(value, type) and issubclass(value, Exception))
]


@pytest.mark.parametrize("name", OBJECTS)
def test_public_names_are_documented(name):
    first = (inspect.getdoc(OBJECTS[name]) or "").partition("\n")[0]
    assert first.endswith(".") or first.endswith("::"), f"{name}: {first!r}"


@pytest.mark.parametrize("name", SHOWN)
def test_public_names_have_an_example(name):
    assert ">>>" in (inspect.getdoc(OBJECTS[name]) or "")


@pytest.mark.parametrize("name", ["pixelclip_sdk", *OBJECTS])
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value = OBJECTS.get(name, pixelclip_sdk)
    finder = doctest.DocTestFinder(recurse=isinstance(value, type))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in finder.find(value, name, module=inspect.getmodule(value)):
        report = []
        runner.run(example, out=report.append)
        assert not runner.failures, "".join(report)
