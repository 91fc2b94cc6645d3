# Scores and report of each part: of fragments at every threshold, or of instances, which have one threshold and no curves.

from emsuite.segmentation.settings import ScoringSettings

CURVES = directory(f"{RESULT}/curves")
if not PLAN.instance_heads:
    CURVES = report(
        CURVES,
        patterns=["{curve}.svg"],
        caption="../workflow/report/curves.rst",
        category="Curves",
        labels={"volume": "{part}", "curve": "{curve}"},
    )


rule evaluate:
    input:
        order=order_file(lambda wildcards: ORDERS.evaluate(wildcards.part)),
        scored=[f"{RESULT}/{name}.manifest.json" for name in ORDERS.scored],
        masks=lambda wildcards: PLAN.volumes.masks([part_of(wildcards)]),
    output:
        csv=f"{RESULT}/scores.csv",
        errors=f"{RESULT}/errors.csv",
        json=f"{RESULT}/scores.json",
        report=report(
            f"{RESULT}/report.html",
            caption="../workflow/report/scores.rst",
            category="Scores",
            labels={"volume": "{part}"},
        ),
        curves=CURVES,
        sections=report(
            directory(f"{RESULT}/sections"),
            patterns=["{section}/{picture}.jpg"],
            caption="../workflow/report/sections.rst",
            category="Sections",
            labels={
                "volume": "{part}",
                "section": "{section}",
                "picture": "{picture}",
            },
        ),
    log:
        f"{RESULT}/log/evaluate.log",
    benchmark:
        f"{RESULT}/log/evaluate.tsv"
    threads: PLAN.config.threads
    params:
        order=order_digest(lambda wildcards: ORDERS.evaluate(wildcards.part)),
        scored=lambda wildcards: ORDERS.scored_options(wildcards.part),
        out=subpath(output.csv, parent=True),
        logs=LOG,
        volume=lambda wildcards: part_of(wildcards).volume,
        truth=lambda wildcards: PLAN.volumes.truth_option(
            part_of(wildcards).volume, PLAN.dataset_option
        ),
        skeletons=lambda wildcards: PLAN.volumes.skeletons_option(
            part_of(wildcards).volume
        ),
        scoring=as_options(PLAN.segmentation, ScoringSettings),
        workers=lambda wildcards, threads: PLAN.workers_option(threads),
        roi=lambda wildcards: as_options(part_of(wildcards), ["roi"]),
    shell:
        "mapfile -d '' timings < <("
        "find {params.logs:q} {params.out:q}/log -maxdepth 1 -name '*.tsv' -printf '--timings\\0%p\\0');"
        " EMSUITE_ORDER={params.order} python 04_segment/evaluate.py {params.scored:q} {params.truth:q}"
        " --raw {params.volume:q}/volumes/raw {params.skeletons:q} {params.roi:q} {params.scoring:q} {params.workers:q}"
        ' "${{timings[@]}}" --out {params.out:q} 2>&1 | tee {log:q}'
