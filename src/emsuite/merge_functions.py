"""What of the affinities between two regions decides on their merge."""

_HISTOGRAM = "OneMinus<HistogramQuantileAffinity<RegionGraphType, {}, ScoreValue, 256, {}>>"
MERGE_FUNCTIONS = {
    "mean": "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>",
    **{f"hist_quant_{q}": _HISTOGRAM.format(q, "false") for q in (10, 25, 50, 75, 90)},
    **{f"hist_quant_{q}_initmax": _HISTOGRAM.format(q, "true") for q in (10, 25, 50, 75, 90)},
}
"""waterz scoring functions by name: 1 - mean, or 1 - a quantile of the affinities between two regions; `initmax`:
between two fragments, the maximum."""
