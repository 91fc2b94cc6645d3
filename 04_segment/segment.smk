# From affinities to scored segments: fragments, region graph, segments at every threshold, scores, the best segmentation.

from emsuite.segmentation.settings import (
    AgglomerationSettings,
    BlockSettings,
    ContextSettings,
    FragmentSettings,
    SweepSettings,
)


rule extract_fragments:
    input:
        order=order_file(lambda wildcards: ORDERS.extract_fragments(wildcards.part)),
        prediction=f"{RESULT}/prediction.zarr.manifest.json",
    output:
        fragments=f"{RESULT}/fragments.zarr.manifest.json",
        nodes=f"{RESULT}/graph/nodes.manifest.json",
    log:
        f"{RESULT}/log/extract_fragments.log",
    benchmark:
        f"{RESULT}/log/extract_fragments.tsv"
    threads: PLAN.config.threads
    params:
        order=order_digest(lambda wildcards: ORDERS.extract_fragments(wildcards.part)),
        prediction=subpath(input.prediction, strip_suffix=".manifest.json"),
        affinities=PLAN.affinities_head,
        out=subpath(output.fragments, parent=True),
        options=as_options(PLAN.segmentation, FragmentSettings)
        + as_options(PLAN.segmentation, BlockSettings),
        workers=lambda wildcards, threads: PLAN.workers_option(threads),
    shell:
        "EMSUITE_ORDER={params.order} python 04_segment/extract_fragments.py --affs {params.prediction:q}/{params.affinities:q}"
        " --out {params.out:q} {params.options:q} {params.workers:q} 2>&1 | tee {log:q}"


rule agglomerate:
    input:
        order=order_file(lambda wildcards: ORDERS.agglomerate(wildcards.part)),
        prediction=f"{RESULT}/prediction.zarr.manifest.json",
        fragments=f"{RESULT}/fragments.zarr.manifest.json",
    output:
        edges=f"{RESULT}/graph/edges.manifest.json",
    log:
        f"{RESULT}/log/agglomerate.log",
    benchmark:
        f"{RESULT}/log/agglomerate.tsv"
    threads: PLAN.config.threads
    params:
        order=order_digest(lambda wildcards: ORDERS.agglomerate(wildcards.part)),
        prediction=subpath(input.prediction, strip_suffix=".manifest.json"),
        affinities=PLAN.affinities_head,
        fragments=subpath(input.fragments, strip_suffix=".manifest.json"),
        out=subpath(output.edges, strip_suffix=".manifest.json"),
        options=as_options(PLAN.segmentation, AgglomerationSettings)
        + as_options(PLAN.segmentation, ContextSettings),
        workers=lambda wildcards, threads: PLAN.workers_option(threads),
    shell:
        "EMSUITE_ORDER={params.order} python 04_segment/agglomerate.py --affs {params.prediction:q}/{params.affinities:q}"
        " --fragments {params.fragments:q}/fragments --out {params.out:q} {params.options:q} {params.workers:q}"
        " 2>&1 | tee {log:q}"


rule find_segments:
    input:
        order=order_file(lambda wildcards: ORDERS.find_segments(wildcards.part)),
        nodes=f"{RESULT}/graph/nodes.manifest.json",
        edges=f"{RESULT}/graph/edges.manifest.json",
    output:
        lookup=f"{RESULT}/lookup.manifest.json",
    log:
        f"{RESULT}/log/find_segments.log",
    benchmark:
        f"{RESULT}/log/find_segments.tsv"
    params:
        order=order_digest(lambda wildcards: ORDERS.find_segments(wildcards.part)),
        nodes=subpath(input.nodes, strip_suffix=".manifest.json"),
        edges=subpath(input.edges, strip_suffix=".manifest.json"),
        out=subpath(output.lookup, strip_suffix=".manifest.json"),
        options=as_options(PLAN.segmentation, SweepSettings),
    shell:
        "EMSUITE_ORDER={params.order} python 04_segment/find_segments.py --nodes {params.nodes:q} --edges {params.edges:q}"
        " --out {params.out:q} {params.options:q} 2>&1 | tee {log:q}"


include: "evaluate.smk"


rule extract_segmentation:
    input:
        order=order_file(lambda wildcards: ORDERS.extract_segmentation(wildcards.part)),
        scores=f"{RESULT}/scores.json",
        fragments=f"{RESULT}/fragments.zarr.manifest.json",
        lookup=f"{RESULT}/lookup.manifest.json",
    output:
        segmentation=f"{RESULT}/segmentation.zarr.manifest.json",
    log:
        f"{RESULT}/log/extract_segmentation.log",
    benchmark:
        f"{RESULT}/log/extract_segmentation.tsv"
    threads: PLAN.config.threads
    params:
        order=order_digest(
            lambda wildcards: ORDERS.extract_segmentation(wildcards.part)
        ),
        fragments=subpath(input.fragments, strip_suffix=".manifest.json"),
        lookup=subpath(input.lookup, strip_suffix=".manifest.json"),
        out=subpath(output.segmentation, strip_suffix=".manifest.json"),
        workers=lambda wildcards, threads: PLAN.workers_option(threads),
    shell:
        "EMSUITE_ORDER={params.order} python 04_segment/extract_segmentation.py --fragments {params.fragments:q}/fragments"
        " --lookup {params.lookup:q} --scores {input.scores:q} --out {params.out:q} {params.workers:q} 2>&1 | tee {log:q}"
