# From foreground, contours and distances to scored instances: for networks that predict these, and no affinities.

from emsuite.segmentation.instances.settings import InstanceSettings
from emsuite.segmentation.settings import ScoringSettings


rule decode_instances:
    input:
        order=order_file(lambda wildcards: ORDERS.decode_instances(wildcards.part)),
        prediction=f"{RESULT}/prediction.zarr.manifest.json",
    output:
        segmentation=f"{RESULT}/segmentation.zarr.manifest.json",
    log:
        f"{RESULT}/log/decode_instances.log",
    benchmark:
        f"{RESULT}/log/decode_instances.tsv"
    threads: PLAN.config.threads
    params:
        order=order_digest(lambda wildcards: ORDERS.decode_instances(wildcards.part)),
        heads=[
            word
            for target, head in PLAN.instance_heads.items()
            for word in (f"--{target}", f"{RESULT}/prediction.zarr/{head}")
        ],
        out=subpath(output.segmentation, strip_suffix=".manifest.json"),
        options=as_options(PLAN.segmentation.instances, InstanceSettings)
        + as_options(PLAN.segmentation, ["block_size"]),
        workers=lambda wildcards, threads: PLAN.workers_option(threads),
    shell:
        "EMSUITE_ORDER={params.order} python 04_segment/decode_instances.py {params.heads:q} --out {params.out:q}"
        " {params.options:q} {params.workers:q} 2>&1 | tee {log:q}"


rule evaluate:
    input:
        order=order_file(lambda wildcards: ORDERS.evaluate(wildcards.part)),
        segmentation=f"{RESULT}/segmentation.zarr.manifest.json",
        masks=lambda wildcards: PLAN.masks([part_of(wildcards)]),
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
        curves=directory(f"{RESULT}/curves"),
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
        segmentation=subpath(input.segmentation, strip_suffix=".manifest.json"),
        out=subpath(output.csv, parent=True),
        logs=LOG,
        volume=lambda wildcards: part_of(wildcards).volume,
        truth=lambda wildcards: PLAN.truth_option(part_of(wildcards)),
        skeletons=lambda wildcards: PLAN.skeletons_option(part_of(wildcards)),
        scoring=as_options(PLAN.segmentation, ScoringSettings),
        workers=lambda wildcards, threads: PLAN.workers_option(threads),
        roi=lambda wildcards: as_options(part_of(wildcards), ["roi"]),
    shell:
        "mapfile -d '' timings < <("
        "find {params.logs:q} {params.out:q}/log -maxdepth 1 -name '*.tsv' -printf '--timings\\0%p\\0');"
        " EMSUITE_ORDER={params.order} python 04_segment/evaluate.py --segmentation {params.segmentation:q}/segmentation"
        " {params.truth:q} --raw {params.volume:q}/volumes/raw"
        ' {params.skeletons:q} {params.roi:q} {params.scoring:q} {params.workers:q} "${{timings[@]}}" --out {params.out:q} 2>&1 | tee {log:q}'
