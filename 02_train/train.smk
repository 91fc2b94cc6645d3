# Training, up to the iteration that is asked for. It continues from the newest checkpoint and never repeats iterations.

TRAINED = (
    PLAN.networks / "{network}/checkpoints/checkpoint_{iterations}.pt.manifest.json"
)


rule train:
    input:
        masks=lambda wildcards: PLAN.masks(PLAN.train_parts),
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
        settings=lambda wildcards: PLAN.training_settings(wildcards.network),
        inputs=lambda wildcards: states(PLAN, PLAN.train_parts, RAW, LABELS, MASK),
        data=PLAN.training_data_options,
        device=device,
        seed=as_options(PLAN.config, ["seed"]),
        if_changed=if_changed,
    shell:
        "python 02_train/train.py {params.folder:q} --iterations {wildcards.iterations:q} {params.data:q}"
        " --device {params.device:q} {params.seed:q} --if-changed {params.if_changed} 2>&1 | tee {log:q}"
