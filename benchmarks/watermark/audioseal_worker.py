"""AudioSeal (MIT), in a Python that has it: the worker of `adapters.OtherPython`, like `resemble_perth`.

Its 16 kHz generator and detector; the probability that it says of a recording, above .5 marked.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import soxr

RATE_HZ = 16_000


def main() -> None:
    import torch
    from audioseal import AudioSeal

    folder, say = Path(sys.argv[1]), sys.stdout
    sys.stdout = sys.stderr  # what the library prints is not a reply
    generator = AudioSeal.load_generator("audioseal_wm_16bits").eval()
    detector = AudioSeal.load_detector("audioseal_detector_16bits").eval()
    for line in sys.stdin:
        asked = json.loads(line)
        given, began = np.load(folder / "in.npy"), time.process_time()
        narrow = soxr.resample(given, asked["rate_hz"], RATE_HZ).astype(np.float32)
        sound = torch.from_numpy(narrow)[None, None]
        reply = {}
        with torch.no_grad():
            if asked["do"] == "mark":
                mark = generator.get_watermark(sound, RATE_HZ)[0, 0].numpy()
                wide = soxr.resample(mark, RATE_HZ, asked["rate_hz"])
                wide = np.pad(wide, (0, max(0, len(given) - len(wide))))[: len(given)]
                np.save(folder / "out.npy", (given + wide).astype(np.float32))
            else:
                reply["score"] = float(detector.detect_watermark(sound, RATE_HZ)[0])
        print(json.dumps(reply | {"cpu_s": time.process_time() - began}), file=say, flush=True)


if __name__ == "__main__":
    main()
