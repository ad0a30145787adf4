"""What a step, a prefill and the audio encoder of the full model launch, counted on shapes alone.

python -m benchmarks.engine_launches [--weights int8] [--kv fp8] [--kinds]
"""

from __future__ import annotations

import argparse

from model.chroma.tools import launches
from model.chroma.tools.launches import Launches

ROWS = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", choices=("full", "int8", "fp8"), default="full")
    parser.add_argument("--kv", choices=("full", "fp8"), default="full")
    parser.add_argument("--kinds", action="store_true", help="what was launched, by name")
    args = parser.parse_args()
    steps = launches.steps_on_paper(
        launches.on_paper(launches.full_size(), weights=args.weights, kv=args.kv), slots=2 * ROWS
    )
    found: dict[str, Launches] = {
        f"step, {'a word' if words else 'no word'}, {'pairs' if pairs else 'sound'}": launches.of_step(
            steps, ROWS, words=words, pairs=pairs
        )
        for words in (True, False)
        for pairs in (True, False)
    }
    found["prefill, one slot"] = launches.of_prefill(steps, [50])
    found["prefill, five slots"] = launches.of_prefill(steps, [50] * 5)
    found["hearing, one chunk"] = launches.of_hearing(steps, 1)
    found["hearing, 16 chunks"] = launches.of_hearing(steps, 16)
    print("|  | launches | torch's | ours |\n| --- | --- | --- | --- |")
    for name, one in found.items():
        print(f"| {name} | {one.total:,} | {one.torch.total():,} | {one.triton.total():,} |")
        if args.kinds:
            print(dict((one.torch + one.triton).most_common()))


if __name__ == "__main__":
    main()
