#!/usr/bin/env bash
# Run the GPU part of the benchmarks: in less than eight minutes, without a network connection.
#     benchmarks/gpu.sh [RESULTS.md]
# Uses PYTHON, else .venv, else python3. The interpreter needs torch and the other dependencies of the suite.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=$(realpath -m "${1:-$here/RESULTS.md}")
cd "$here/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || command -v "$python" >/dev/null || python=python3
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"

"$python" - <<'PYTHON' || exit 2
import sys

try:
    import torch
except ImportError:
    sys.exit(f"error: {sys.executable} has no torch; set PYTHON to one that has")
if not torch.cuda.is_available():
    sys.exit("error: torch sees no GPU here; nothing was measured")
PYTHON
exec "$python" benchmarks/run_all.py --part gpu --results "$results"
