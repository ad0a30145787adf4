"""What callers really write, by the real edge to an RTP line: the tests of a SIP line."""

from __future__ import annotations

import pytest

from tests.gateway.line.test_edge_to_line import (  # noqa: F401  # run here, with this folder's exchange
    door,
    test_a_caller_of_before_rfc_3261_calls_and_is_hung_up,
    test_a_line_finds_the_audio_by_itself,
    test_a_line_reads_what_a_caller_writes,
    test_audio_that_is_not_first_is_heard,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
