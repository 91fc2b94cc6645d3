"""Loaded by every Python of the image: where a package is missing, one line says so, whatever was run."""

import sys
from types import TracebackType


def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Instead of a traceback, how the image differs from requirements.lock, if it does."""
    if issubclass(kind, ModuleNotFoundError):
        from emsuite.common.errors import BadInput
        from emsuite.common.locked_packages import check_image_here

        try:
            check_image_here()
        except BadInput as difference:
            print(f"error: {difference}", file=sys.stderr)
            sys.exit(2)
    sys.__excepthook__(kind, error, trace)


sys.excepthook = tell
