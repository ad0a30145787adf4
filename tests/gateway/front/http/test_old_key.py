from pathlib import Path

from structlog.testing import capture_logs

from gateway.front.__main__ import say_old_key
from watermark.keys import BOTH_LAYERS, MarkKey


def test_a_marking_key_of_an_older_version_is_said_with_the_way_to_a_new_one() -> None:
    path = Path("/data/watermark-keys.json")
    with capture_logs() as logs:
        say_old_key(MarkKey("wm-0007", 7, bytes(32), BOTH_LAYERS), path)
        assert logs == []
        say_old_key(MarkKey("wm-0007", 7, bytes(32)), path)
    (said,) = logs
    assert (said["event"], said["key"], said["log_level"]) == ("watermark.old_key", "wm-0007", "warning")
    assert "voicegate watermark rotate /data/watermark-keys.json" in said["fix"]
