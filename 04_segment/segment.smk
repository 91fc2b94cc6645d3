# Affinities to scored segments: fragments, their region graph, segments at every threshold, scores, the best of them.


rule extract_fragments:
    input:
        RESULT / "prediction.zarr.manifest.json",
    output:
        RESULT / "fragments.zarr.manifest.json",
        RESULT / "graph/nodes.manifest.json",
    log:
        RESULT / "log/extract_fragments.log",
    benchmark:
        RESULT / "log/extract_fragments.tsv"
    threads: FLOW.config.threads
    params:
        affs=RESULT / "prediction.zarr/affs",
        out=RESULT,
        options=FLOW.segmentation.fragment_options + FLOW.segmentation.block_options,
    shell:
        "python 04_segment/extract_fragments.py --affs {params.affs} --out {params.out} {params.options}"
        " --workers {threads} 2>&1 | tee {log}"


rule agglomerate:
    input:
        RESULT / "fragments.zarr.manifest.json",
    output:
        RESULT / "graph/edges.manifest.json",
    log:
        RESULT / "log/agglomerate.log",
    benchmark:
        RESULT / "log/agglomerate.tsv"
    threads: FLOW.config.threads
    params:
        affs=RESULT / "prediction.zarr/affs",
        fragments=RESULT / "fragments.zarr/fragments",
        out=RESULT / "graph/edges",
        merge_function=FLOW.segmentation.merge_function,
        options=FLOW.segmentation.context_option,
    shell:
        "python 04_segment/agglomerate.py --affs {params.affs} --fragments {params.fragments} --out {params.out}"
        " --merge-function {params.merge_function} {params.options} --workers {threads} 2>&1 | tee {log}"


rule find_segments:
    input:
        nodes=RESULT / "graph/nodes.manifest.json",
        edges=RESULT / "graph/edges.manifest.json",
    output:
        RESULT / "lookup.manifest.json",
    log:
        RESULT / "log/find_segments.log",
    benchmark:
        RESULT / "log/find_segments.tsv"
    params:
        graph=RESULT / "graph",
        out=RESULT / "lookup",
        thresholds=FLOW.segmentation.thresholds,
    shell:
        "python 04_segment/find_segments.py --nodes {params.graph}/nodes --edges {params.graph}/edges"
        " --out {params.out} --thresholds {params.thresholds} 2>&1 | tee {log}"


rule evaluate:
    input:
        lookup=RESULT / "lookup.manifest.json",
        masks=lambda wildcards: masks_of([part_of(wildcards)]),
    output:
        csv=RESULT / "scores.csv",
        json=RESULT / "scores.json",
        report=report(
            RESULT / "report.html", category="Scores", labels={"volume": "{part}"}
        ),
    log:
        RESULT / "log/evaluate.log",
    benchmark:
        RESULT / "log/evaluate.tsv"
    params:
        out=RESULT,
        volume=lambda wildcards: part_of(wildcards).volume,
        skeletons=lambda wildcards: FLOW.skeletons_option(part_of(wildcards)),
        roi=lambda wildcards: part_of(wildcards).roi_option,
    shell:
        "python 04_segment/evaluate.py --fragments {params.out}/fragments.zarr/fragments --lookup {params.out}/lookup"
        " --labels {params.volume}/volumes/labels/neuron_ids --mask {params.volume}/volumes/labels/labels_mask"
        " --raw {params.volume}/volumes/raw --affs {params.out}/prediction.zarr/affs {params.skeletons} {params.roi}"
        " $(find {LOG} {params.out}/log -maxdepth 1 -name '*.tsv' -printf ' --timings %p')"
        " --out {params.out} 2>&1 | tee {log}"


rule extract_segmentation:
    input:
        scores=RESULT / "scores.json",
        lookup=RESULT / "lookup.manifest.json",
    output:
        RESULT / "segmentation.zarr.manifest.json",
    log:
        RESULT / "log/extract_segmentation.log",
    benchmark:
        RESULT / "log/extract_segmentation.tsv"
    threads: FLOW.config.threads
    params:
        fragments=RESULT / "fragments.zarr/fragments",
        lookup=RESULT / "lookup",
        out=RESULT / "segmentation.zarr",
    shell:
        "python 04_segment/extract_segmentation.py --fragments {params.fragments} --lookup {params.lookup}"
        " --scores {input.scores} --out {params.out} --workers {threads} 2>&1 | tee {log}"
