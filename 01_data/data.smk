# Volumes: fetch or synthesize them, and write their labels, if they are made from membranes, and their masks.

VOLUME = (
    PLAN.dataset.volume_path(PLAN.dataset.volumes[0], PLAN.config.data).parent
    / f"{{volume}}{PLAN.dataset.suffix}"
)


if PLAN.dataset.synthesis:

    rule synthesize:
        input:
            order=order_file(volume_order),
        output:
            f"{VOLUME}.manifest.json",
        log:
            f"{LOG}/synthesize_{{volume}}.log",
        benchmark:
            f"{LOG}/synthesize_{{volume}}.tsv"
        threads: PLAN.config.threads
        params:
            order=order_digest(volume_order),
            options=lambda wildcards: PLAN.dataset.synthesis_options(wildcards.volume),
            out=subpath(output[0], strip_suffix=".manifest.json"),
        shell:
            "EMSUITE_ORDER={params.order} python 01_data/synthesize.py --out {params.out:q} {params.options:q} 2>&1 | tee {log:q}"

elif (
    not PLAN.dataset.folder
):  # from a bucket, behind URLs, or copied from a shared folder

    rule fetch_data:
        input:
            order=order_file(volume_order),
        output:
            f"{VOLUME}.manifest.json",
        log:
            f"{LOG}/fetch_{{volume}}.log",
        benchmark:
            f"{LOG}/fetch_{{volume}}.tsv"
        params:
            order=order_digest(volume_order),
            dataset=PLAN.dataset_option,
            data=PLAN.config.data,
            source=source_option,
        shell:
            "EMSUITE_ORDER={params.order} python 01_data/fetch_data.py --dataset {params.dataset:q} --volume {wildcards.volume:q}"
            " --out {params.data:q} {params.source:q} 2>&1 | tee {log:q}"


for number, volume in enumerate(PLAN.labelled_volumes, start=1):

    rule:
        name:
            f"create_labels_{number}" if number > 1 else "create_labels"
        input:
            order=ORDERS.labels(volume).files,
            volume=PLAN.volumes.manifest(volume),
        output:
            str(labels_path(volume)),
        log:
            f"{LOG}/labels/{log_name(PLAN, volume)}.log",
        benchmark:
            f"{LOG}/labels/{log_name(PLAN, volume)}.tsv"
        params:
            dataset=PLAN.dataset_option,
            volume=volume,
            order=ORDERS.labels(volume).digest,
        shell:
            "EMSUITE_ORDER={params.order} python 01_data/create_labels.py --dataset {params.dataset:q} -- {params.volume:q} 2>&1 | tee {log:q}"


# A rule for each volume, so that its logs have the name of the volume, wherever it lies.
for number, volume in enumerate(PLAN.masked_volumes, start=1):

    rule:
        name:
            f"create_masks_{number}" if number > 1 else "create_masks"
        input:
            order=ORDERS.masks(volume).files,
            volume=PLAN.volumes.manifest(volume),
            labels=[str(labels_path(volume))] if PLAN.dataset.labels else [],
        output:
            str(masks_path(volume)),
        log:
            f"{LOG}/masks/{log_name(PLAN, volume)}.log",
        benchmark:
            f"{LOG}/masks/{log_name(PLAN, volume)}.tsv"
        params:
            dataset=PLAN.dataset_option,
            volume=volume,
            order=ORDERS.masks(volume).digest,
        shell:
            "EMSUITE_ORDER={params.order} python 01_data/create_masks.py --dataset {params.dataset:q} -- {params.volume:q} 2>&1 | tee {log:q}"
