#!/bin/sh
# wheels.sh fetch: downloads the wheels of wheels.txt for CPython 3.12 on x86-64 Linux into wheels/, wherever there
#   is a package index.
# wheels.sh install: puts them into site/, beside the machine's own torch and triton, which stay as they are.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
case "${1:-}" in
fetch)
  "$python" -m pip download --quiet --no-deps --only-binary :all: --dest wheels --requirement wheels.txt \
    --implementation cp --python-version 3.12 --abi cp312 --abi abi3 --abi none \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform any
  ;;
install)
  "$python" -m pip install --quiet --no-deps --no-index --upgrade --target site wheels/*.whl
  ;;
*)
  echo "usage: wheels.sh fetch | install" >&2
  exit 2
  ;;
esac
