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

"$python" -c 'import torch' 2>/dev/null || { echo "error: $python has no torch; set PYTHON to one that has" >&2; exit 2; }
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null ||
  { echo "error: torch sees no GPU here; nothing was measured" >&2; exit 2; }
exec "$python" benchmarks/run_all.py --part gpu --results "$results"
