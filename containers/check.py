#!/usr/bin/env python
"""Run in an image: says in one line what it lacks of the suite's requirements.lock."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))


def main() -> None:
    """Needs no package: an image without any is told of, too."""
    from emsuite.common.errors import BadInput
    from emsuite.common.locked_packages import check_image_here

    try:
        check_image_here()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
