from benchmarks.watermark.listening_page import KINDS, scored


def test_answers_are_counted_by_kind_with_the_chance_of_guessing_so_well() -> None:
    first, second, third = KINDS
    key = {
        f"p{at}": {"marked": "ab"[at % 2], "kind": first if at < 4 else second, "voice": "en"}
        for at in range(8)
    }
    all_right = {name: pair["marked"] for name, pair in key.items()}
    one_wrong = all_right | {"p4": "b"}
    assert scored(key, [all_right, one_wrong]) == {
        first: (8, 8, 1 / 256),
        second: (7, 8, 9 / 256),
        third: (0, 0, 1.0),
    }
