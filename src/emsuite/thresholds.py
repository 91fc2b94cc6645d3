"""A sweep of thresholds as it is written: first, last and step."""

import math

from emsuite.errors import BadInput


def parse_thresholds(text: str) -> list[float]:
    """`first,last,step` as all thresholds from first to last, both among them; raises BadInput.

    Rounded to 10 decimals, so that 0.28 and 0.29 are what they say.
    """
    try:
        first, last, step = (float(part) for part in text.split(","))
        count = math.floor((last - first) / step + 1e-6) + 1
    except (ValueError, ZeroDivisionError, OverflowError):
        raise BadInput(f"thresholds {text!r}: expected three numbers as first,last,step, as 0,1,0.02") from None
    if count < 1 or step < 0 or not 0 <= first <= last <= 1:
        raise BadInput(f"thresholds {text!r}: expected first <= last, both in [0, 1], and a step above 0")
    return [round(first + i * step, 10) for i in range(count)]
