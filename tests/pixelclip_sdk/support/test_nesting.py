import time

import pytest

from pixelclip_sdk.support.nesting import refuse_nested


@pytest.mark.parametrize("text", ["[" * 101, '{"a":' * 101, "a: [" + "{x: [], y: " * 200])
def test_nested_brackets_are_refused(text):
    with pytest.raises(ValueError, match="nested more than 100 levels"):
        refuse_nested(text)


@pytest.mark.parametrize("text", ["[" * 100 + "]" * 100, "[1]\n" * 1000, "]" * 1000 + "[", "a: b\n"])
def test_many_brackets_one_after_the_other_are_not(text):
    refuse_nested(text)


def test_it_takes_no_time():
    start = time.process_time()
    with pytest.raises(ValueError, match="nested"):
        refuse_nested("[" * 10**6)
    assert time.process_time() - start < 1
