"""Pages: who claimed one is never without, none is two slots', and what nobody holds is nobody's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.chroma.network.cache import KVCache
from model.chroma.network.pages import Pages

CAPACITY, PAGE = 40, 8


def cache(slots: int, pages: int | None, promised: int) -> KVCache:
    return KVCache(
        2, slots, 3, 4, CAPACITY, page=PAGE, pages=pages, promised=promised,
        device=torch.device("cpu"), dtype=torch.float32,
    )  # fmt: skip


def test_a_slot_holds_what_it_uses_and_gives_it_back() -> None:
    kv = cache(3, 8, 8)
    assert [kv.claim(slot, CAPACITY) for slot in range(3)] == [True, False, False]
    assert kv.claim(1, 9), "two pages"
    kv.reserve({0: 17, 1: 3})
    assert [len(held) for held in kv.pages.held] == [3, 1, 0]
    kv.learn(0, 17)
    kv.cut(0, 8)
    assert [len(held) for held in kv.pages.held] == [1, 1, 0]
    kv.leave(0)
    assert kv.pages.left == 6
    assert kv.claim(2, CAPACITY)


def test_who_has_more_than_is_promised_shrinks_when_others_come() -> None:
    """Six slots and pages for 16: two each, and what one slot can use besides."""
    kv = cache(6, 16, 2 * PAGE)
    for slot in range(4):
        assert kv.claim(slot, 2 * PAGE)
    assert kv.allowed(0) == CAPACITY, "two slots that nobody has could not claim all that is left"
    assert kv.claim(0, kv.allowed(0))
    assert kv.claim(1, kv.allowed(1))
    assert kv.allowed(2) == 2 * PAGE, "what is left is spared for those who come"
    assert kv.claim(4, 2 * PAGE)
    assert kv.allowed(0) < CAPACITY, "and whoever has more is to shrink"
    assert kv.claim(0, kv.allowed(0))
    assert kv.claim(5, 2 * PAGE)
    assert all(kv.allowed(slot) >= 2 * PAGE for slot in range(6))


def test_what_is_held_stays_claimed_until_it_is_cut() -> None:
    pages = Pages(2, 5, 6, 1)
    assert pages.claim(0, 5)
    pages.take(0, 5)
    assert pages.claim(0, 1)
    assert not pages.claim(1, 2), "five are held still"
    pages.cut(0, 1)
    assert pages.claim(0, 1)
    assert pages.claim(1, 5)
    with pytest.raises(ValueError, match="claimed 1 pages and takes 2"):
        pages.take(0, 2)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.data())
def test_whoever_has_claimed_is_never_without_and_no_page_is_two_slots(data: st.DataObject) -> None:
    """Conversations come, grow as they may, are cut and leave, in any order."""
    slots, each = 5, 6
    promised = data.draw(st.integers(1, each))
    pages = Pages(slots, each, slots * promised + each - promised, promised)
    here: set[int] = set()
    for _ in range(data.draw(st.integers(1, 60))):
        slot = data.draw(st.integers(0, slots - 1))
        match data.draw(st.sampled_from(["come", "grow", "take", "cut", "leave"])):
            case "come" if slot not in here:
                if pages.claim(slot, promised):
                    here.add(slot)
            case "grow" if slot in here:
                assert pages.claim(slot, data.draw(st.integers(0, pages.allowed(slot))))
            case "take" if slot in here:
                pages.take(slot, data.draw(st.integers(len(pages.held[slot]), pages.claims[slot])))
            case "cut" if slot in here:
                pages.cut(slot, data.draw(st.integers(0, len(pages.held[slot]))))
            case "leave" if slot in here:
                pages.cut(slot, 0)
                pages.leave(slot)
                here.discard(slot)
        held = [page for one in pages.held for page in one]
        assert len(held) == len(set(held))
        assert sorted([*held, *pages._free]) == list(range(pages.count))
        assert pages.left >= 0
        for one in here:
            assert pages.allowed(one) >= promised


def test_the_device_knows_pages_and_limits_before_they_are_used() -> None:
    kv = cache(2, 6, PAGE)
    blank = kv.pages.count
    assert kv.table[0].tolist() == [blank] * 5 + [blank + 1]
    assert kv.claim(0, 20)
    kv.reserve({0: 12})
    assert kv.table[0].tolist() == [*kv.pages.held[0], *[blank] * 3, blank + 1]
    assert kv.limits[:2].tolist() == [3 * PAGE, 0]
    kv.learn(0, 12)
    kv.cut(0, 3)
    kv.reserve({0: 3})
    assert kv.table[0].tolist() == [*kv.pages.held[0], *[blank] * 4, blank + 1]
    assert not kv.keys[:, blank].any()
