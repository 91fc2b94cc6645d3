#!/usr/bin/env python
"""Run in an image: says in one line what it lacks of requirements.lock (given, else that beside)."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))


def main() -> None:
    """Needs no package: an image without any is told of, too."""
    from emsuite.errors import BadInput
    from emsuite.packages import check_packages

    lock = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "requirements.lock"
    image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER") or sys.prefix
    try:
        check_packages(lock.resolve(), image)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
