# Training, up to the iteration that is asked for. It continues from the newest checkpoint and never repeats iterations.

TRAINED = (
    PLAN.network_folder.parent
    / "{network}/checkpoints/checkpoint_{iterations}.pt.manifest.json"
)


rule train:
    input:
        masks=masks_of(PLAN.train_parts),
        network=PLAN.network_folder.parent / "{network}/network.yaml",
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
        folder=subpath(input.network, parent=True),
        data=PLAN.training_data_options,
        device=device,
        seed=as_options(PLAN.config, ["seed"]),
    shell:
        "python 02_train/train.py {params.folder:q} --iterations {wildcards.iterations:q} {params.data:q}"
        " --device {params.device:q} {params.seed:q} 2>&1 | tee {log:q}"
