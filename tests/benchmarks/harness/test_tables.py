from benchmarks.harness.tables import number, table


def test_columns_are_aligned_and_numbers_are_to_the_right():
    shown = table(
        [{"name": "a", "ms": 12.345, "speedup": 2.5}, {"name": "bcd", "ms": 1234.5, "speedup": None}]
    )
    assert shown.splitlines() == [
        "| name |   ms | speedup |",
        "| ---- | ---: | ------: |",
        "| a    | 12.3 |   2.50× |",
        "| bcd  | 1234 |       – |",
    ]


def test_columns_without_values_are_left_out_and_text_cannot_break_the_table():
    entries = [{"name": "a", "p50": 1.5}, {"name": "b", "reason": "one\ntwo | three"}]
    columns = {"backend": "name", "p50, ms": "p50", "p95, ms": "p95", "why": "reason"}
    assert [line.split(" | ") for line in table(entries, columns).splitlines()[2:]] == [
        ["| a      ", "   1.50", "–                |"],
        ["| b      ", "      –", "one two \\| three |"],
    ]


def test_shares_and_stages_have_their_form():
    entry = {"name": "a", "miou": 0.1834, "equal_labels": 0.98825, "equal_pixels": 0.999998, "photos": 20}
    *_, row = table([entry]).splitlines()
    assert row.strip("| ").split(" | ") == ["a   ", "18.3%", "      98.83%", "    99.9998%", "    20"]
    assert "decode 1.20, total 30.0" in table([{"name": "a", "ms": {"decode": 1.2, "total": 30.0}}])


def test_numbers_have_about_three_digits():
    assert [number(value) for value in (0.0123, 0.5, 1.234, 12.34, 123.4, 1234.5)] == [
        *("0.012", "0.50", "1.23", "12.3", "123.4", "1234"),
    ]
