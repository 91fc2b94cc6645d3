# Affinities to scored segments: fragments, their region graph, segments at every threshold, scores, the best of them.


rule extract_fragments:
    input:
        prediction=f"{RESULT}/prediction.zarr.manifest.json",
    output:
        fragments=f"{RESULT}/fragments.zarr.manifest.json",
        nodes=f"{RESULT}/graph/nodes.manifest.json",
    log:
        f"{RESULT}/log/extract_fragments.log",
    benchmark:
        f"{RESULT}/log/extract_fragments.tsv"
    threads: FLOW.config.threads
    params:
        prediction=subpath(input.prediction, strip_suffix=".manifest.json"),
        out=subpath(output.fragments, parent=True),
        options=FLOW.segmentation.fragment_options + FLOW.segmentation.block_options,
        workers=lambda wildcards, threads: FLOW.segmentation.workers_option(threads),
    shell:
        "python 04_segment/extract_fragments.py --affs {params.prediction}/affs --out {params.out} {params.options}"
        " {params.workers} 2>&1 | tee {log}"


rule agglomerate:
    input:
        prediction=f"{RESULT}/prediction.zarr.manifest.json",
        fragments=f"{RESULT}/fragments.zarr.manifest.json",
    output:
        edges=f"{RESULT}/graph/edges.manifest.json",
    log:
        f"{RESULT}/log/agglomerate.log",
    benchmark:
        f"{RESULT}/log/agglomerate.tsv"
    threads: FLOW.config.threads
    params:
        prediction=subpath(input.prediction, strip_suffix=".manifest.json"),
        fragments=subpath(input.fragments, strip_suffix=".manifest.json"),
        out=subpath(output.edges, strip_suffix=".manifest.json"),
        merge_function=FLOW.segmentation.merge_function,
        options=FLOW.segmentation.context_option,
        workers=lambda wildcards, threads: FLOW.segmentation.workers_option(threads),
    shell:
        "python 04_segment/agglomerate.py --affs {params.prediction}/affs --fragments {params.fragments}/fragments"
        " --out {params.out} --merge-function {params.merge_function} {params.options} {params.workers}"
        " 2>&1 | tee {log}"


rule find_segments:
    input:
        nodes=f"{RESULT}/graph/nodes.manifest.json",
        edges=f"{RESULT}/graph/edges.manifest.json",
    output:
        lookup=f"{RESULT}/lookup.manifest.json",
    log:
        f"{RESULT}/log/find_segments.log",
    benchmark:
        f"{RESULT}/log/find_segments.tsv"
    params:
        nodes=subpath(input.nodes, strip_suffix=".manifest.json"),
        edges=subpath(input.edges, strip_suffix=".manifest.json"),
        out=subpath(output.lookup, strip_suffix=".manifest.json"),
        thresholds=FLOW.segmentation.thresholds,
    shell:
        "python 04_segment/find_segments.py --nodes {params.nodes} --edges {params.edges}"
        " --out {params.out} --thresholds {params.thresholds} 2>&1 | tee {log}"


rule evaluate:
    input:
        prediction=f"{RESULT}/prediction.zarr.manifest.json",
        fragments=f"{RESULT}/fragments.zarr.manifest.json",
        lookup=f"{RESULT}/lookup.manifest.json",
        edges=f"{RESULT}/graph/edges.manifest.json",
        masks=lambda wildcards: masks_of([part_of(wildcards)]),
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
        curves=report(
            directory(f"{RESULT}/curves"),
            patterns=["{curve}.svg"],
            caption="../workflow/report/curves.rst",
            category="Curves",
            labels={"volume": "{part}", "curve": "{curve}"},
        ),
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
    threads: FLOW.config.threads
    params:
        prediction=subpath(input.prediction, strip_suffix=".manifest.json"),
        fragments=subpath(input.fragments, strip_suffix=".manifest.json"),
        lookup=subpath(input.lookup, strip_suffix=".manifest.json"),
        out=subpath(output.csv, parent=True),
        logs=LOG,
        volume=lambda wildcards: part_of(wildcards).volume,
        skeletons=lambda wildcards: FLOW.skeletons_option(part_of(wildcards)),
        edges=lambda wildcards: FLOW.edges_option(part_of(wildcards)),
        workers=lambda wildcards, threads: FLOW.segmentation.workers_option(threads),
        roi=lambda wildcards: part_of(wildcards).roi_option,
    shell:
        "python 04_segment/evaluate.py --fragments {params.fragments}/fragments --lookup {params.lookup}"
        " --labels {params.volume}/volumes/labels/neuron_ids --mask {params.volume}/volumes/labels/labels_mask"
        " --raw {params.volume}/volumes/raw --affs {params.prediction}/affs {params.skeletons} {params.roi}"
        " {params.edges} {params.workers}"
        " $(find {params.logs} {params.out}/log -maxdepth 1 -name '*.tsv' -printf ' --timings %p')"
        " --out {params.out} 2>&1 | tee {log}"


rule extract_segmentation:
    input:
        scores=f"{RESULT}/scores.json",
        fragments=f"{RESULT}/fragments.zarr.manifest.json",
        lookup=f"{RESULT}/lookup.manifest.json",
    output:
        segmentation=f"{RESULT}/segmentation.zarr.manifest.json",
    log:
        f"{RESULT}/log/extract_segmentation.log",
    benchmark:
        f"{RESULT}/log/extract_segmentation.tsv"
    threads: FLOW.config.threads
    params:
        fragments=subpath(input.fragments, strip_suffix=".manifest.json"),
        lookup=subpath(input.lookup, strip_suffix=".manifest.json"),
        out=subpath(output.segmentation, strip_suffix=".manifest.json"),
        workers=lambda wildcards, threads: FLOW.segmentation.workers_option(threads),
    shell:
        "python 04_segment/extract_segmentation.py --fragments {params.fragments}/fragments --lookup {params.lookup}"
        " --scores {input.scores} --out {params.out} {params.workers} 2>&1 | tee {log}"
