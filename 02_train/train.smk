# Training, up to the iteration that is asked for. It continues from the newest checkpoint and never repeats iterations.

TRAINED = (
    PLAN.networks / "{network}/checkpoints/checkpoint_{iterations}.pt.manifest.json"
)


rule train:
    input:
        order=order_file(training_order),
        masks=lambda wildcards: PLAN.volumes.masks(
            PLAN.train_parts + PLAN.validation_parts(wildcards.network)
        ),
        frozen=lambda wildcards: PLAN.frozen_manifest(wildcards.network),
    output:
        str(TRAINED),
    log:
        f"{LOG}/train_{{network}}_{{iterations}}.log",
    benchmark:
        f"{LOG}/train_{{network}}_{{iterations}}.tsv"
    threads: PLAN.config.threads
    resources:
        gpu=1,
    params:
        folder=lambda wildcards: PLAN.networks / wildcards.network,
        order=order_digest(training_order),
        data=PLAN.training_data_options,
        validation=lambda wildcards: PLAN.validation_options(wildcards.network),
        device=device,
        seed=as_options(PLAN.config, ["seed"]),
        if_changed=if_changed,
    shell:
        "EMSUITE_ORDER={params.order} python 02_train/train.py {params.folder:q} --iterations {wildcards.iterations:q} {params.data:q} {params.validation:q}"
        " --device {params.device:q} {params.seed:q} --if-changed {params.if_changed} 2>&1 | tee {log:q}"
