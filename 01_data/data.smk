# Volumes: fetch or synthesize them, and write their masks.

VOLUME = (
    PLAN.dataset.volume_path(PLAN.dataset.volumes[0], PLAN.config.data).parent
    / "{volume}.zarr"
)


if PLAN.dataset.synthesis:

    rule synthesize:
        output:
            f"{VOLUME}.manifest.json",
        log:
            f"{LOG}/synthesize_{{volume}}.log",
        benchmark:
            f"{LOG}/synthesize_{{volume}}.tsv"
        threads: PLAN.config.threads
        params:
            options=lambda wildcards: PLAN.dataset.synthesis_options(wildcards.volume),
            out=subpath(output[0], strip_suffix=".manifest.json"),
        shell:
            "python 01_data/synthesize.py --out {params.out:q} {params.options:q} 2>&1 | tee {log:q}"

elif PLAN.dataset.bucket:

    rule fetch_data:
        output:
            f"{VOLUME}.manifest.json",
        log:
            f"{LOG}/fetch_{{volume}}.log",
        benchmark:
            f"{LOG}/fetch_{{volume}}.tsv"
        params:
            dataset=PLAN.dataset.name,
            data=PLAN.config.data,
            source=source_option,
        shell:
            "python 01_data/fetch_data.py --dataset {params.dataset:q} --volume {wildcards.volume:q}"
            " --out {params.data:q} {params.source:q} 2>&1 | tee {log:q}"


rule create_masks:
    input:
        lambda wildcards: PLAN.volume_manifest(Path(f"{wildcards.volume}.zarr")),
    output:
        "{volume}.zarr.masks.json",
    log:
        f"{LOG}/masks/{{volume}}.log",
    benchmark:
        f"{LOG}/masks/{{volume}}.tsv"
    params:
        dataset=PLAN.dataset.name,
    shell:
        "python 01_data/create_masks.py {wildcards.volume:q}.zarr --dataset {params.dataset:q} 2>&1 | tee {log:q}"
