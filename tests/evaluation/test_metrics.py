"""The table of metrics: its columns, and what each is computed from."""

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.evaluation.contingency import contingency
from emsuite.evaluation.metrics import METRICS, Measurements, compute_metrics
from emsuite.evaluation.min_cut import Edits
from emsuite.evaluation.run_length import RunLength
from emsuite.evaluation.scores import adapted_rand, cremi_score_of, rand_index, variation_of_information


def blobs(seed, shape=(24, 24, 24), ids=20):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, ids, [n // 4 for n in shape])
    return np.where(rng.random(shape) < 0.2, rng.integers(1, ids, shape), np.kron(coarse, np.ones((4, 4, 4), int)))


def test_columns_of_scores_csv_keep_their_names_and_order():
    assert ",".join(["threshold", *METRICS]) == (
        "threshold,voi_split,voi_merge,voi_sum,adapted_rand_error,precision,recall,rand_index,erl,nerl,splits,merges,"
        "segments,splits_needed,merges_needed,unsplittable,joins_needed,rand_split,rand_merge,nvi_split,nvi_merge,nid,"
        "node_voi_split,node_voi_merge,synapse_voi_split,synapse_voi_merge,cremi_score,cremi_rand_error,"
        "section_voi_split,section_voi_merge,section_voi_sum,section_rand_error,"
        "average_precision,ap_50,ap_75"
    )


def test_each_metric_is_computed_from_what_it_takes():
    labels, segmentation = blobs(0), blobs(1)
    table = contingency(segmentation, labels)
    voi, rand = variation_of_information(segmentation, labels), adapted_rand(segmentation, labels)
    regions = {
        "voi_split": voi.split, "voi_merge": voi.merge, "voi_sum": voi.sum, "adapted_rand_error": rand.error,
        "precision": rand.precision, "recall": rand.recall, "rand_index": rand_index(segmentation, labels),
        "segments": 19,
    }  # fmt: skip
    run_length = {"erl": 40.0, "nerl": 0.25, "splits": 3, "merges": 2}
    edits = {"splits_needed": 5, "merges_needed": 6, "joins_needed": 7, "unsplittable": 1}
    alone = compute_metrics(Measurements(table))
    cremi = {"cremi_score": cremi_score_of(table).score, "cremi_rand_error": cremi_score_of(table).rand_error}
    sections = dict.fromkeys(name for name in METRICS if name.startswith("section_"))
    assert alone | regions | cremi | sections | dict.fromkeys([*run_length, *edits]) == alone
    measured = compute_metrics(Measurements(table, RunLength(**run_length), Edits(5, 6, 7, 1)))
    assert measured | regions | run_length | edits == measured
    assert list(measured) == list(alone) == list(METRICS)
    of_sections = compute_metrics(Measurements(table, section_tables=[table]), sections)
    assert of_sections == {
        "section_voi_split": voi.split, "section_voi_merge": voi.merge, "section_voi_sum": voi.sum,
        "section_rand_error": rand.error,
    }  # fmt: skip
    assert compute_metrics(Measurements(table), ["segments"]) == {"segments": 19}


def test_metrics_of_nothing_labelled_are_refused():
    with pytest.raises(BadInput, match="nothing but 0"):
        compute_metrics(Measurements(contingency(np.ones(3, int), np.zeros(3, int))))
