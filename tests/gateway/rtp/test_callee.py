"""What a SIP line promises of a call, an RTP line keeps: the same tests, by the same telephone."""

from __future__ import annotations

import pytest

from tests.gateway.line.test_sipcall import (  # noqa: F401  # run here, with this folder's exchange
    test_a_call_that_is_over_is_an_error_that_names_it,
    test_a_caller_can_neither_transfer_us_nor_take_a_call_over,
    test_a_caller_who_acknowledges_late_is_confirmed_then,
    test_a_caller_who_hangs_up_instead_of_acknowledging_has_hung_up,
    test_a_caller_without_an_offer_gets_ours_and_answers_it_with_the_ack,
    test_a_codec_may_change_in_the_call,
    test_a_hall_that_will_not_take_a_call_hangs_up_before_the_answer,
    test_a_hold_in_the_old_style_is_one,
    test_a_hold_is_told_and_nothing_is_heard_on_it,
    test_a_line_repeats_why_its_hall_hangs_up,
    test_a_transfer_that_is_taken_ends_the_call,
    test_a_transfer_the_telephone_refuses_is_told_and_the_call_goes_on,
    test_a_transfer_whose_target_is_busy_is_told_and_the_call_goes_on,
    test_every_key_is_told_once_by_rfc_4733_and_by_info,
    test_sound_that_comes_from_elsewhere_is_told,
    test_the_caller_gives_up_before_the_answer,
    test_the_caller_hangs_up,
    test_the_hall_presses_keys,
    test_we_hang_up,
    test_what_is_asked_twice_or_too_late_changes_nothing,
    test_what_no_telephone_has_keys_for_is_refused,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
