"""resemble-perth (MIT), in a Python that has it: the worker of `adapters.OtherPython`.

It reads lines such as {"do": "mark", "rate_hz": 24000} for the sound in in.npy of its folder, and writes
out.npy (mark) or says what its detector says (look): the mean of its bits, above .5 marked.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    import perth

    folder, say = Path(sys.argv[1]), sys.stdout
    sys.stdout = sys.stderr  # what the library prints is not a reply
    marker = perth.PerthImplicitWatermarker()
    for line in sys.stdin:
        asked = json.loads(line)
        samples, began = np.load(folder / "in.npy"), time.process_time()
        if asked["do"] == "mark":
            marked = marker.apply_watermark(samples, sample_rate=asked["rate_hz"])
            np.save(folder / "out.npy", np.asarray(marked, np.float32))
            reply = {}
        else:
            reply = {"score": float(np.mean(marker.get_watermark(samples, sample_rate=asked["rate_hz"])))}
        print(json.dumps(reply | {"cpu_s": time.process_time() - began}), file=say, flush=True)


if __name__ == "__main__":
    main()
