# Training, up to the iteration that is asked for; what is there already is gone on from, never redone.

TRAINED = (
    FLOW.network_folder.parent
    / "{network}/checkpoints/checkpoint_{iterations}.pt.manifest.json"
)


rule train:
    input:
        masks=masks_of(FLOW.train_parts),
        network=FLOW.network_folder.parent / "{network}/network.yaml",
        first=lambda wildcards: FLOW.first_trained(wildcards.network),
    output:
        str(TRAINED),
    log:
        f"{LOG}/train_{{network}}_{{iterations}}.log",
    benchmark:
        f"{LOG}/train_{{network}}_{{iterations}}.tsv"
    threads: FLOW.config.threads
    resources:
        gpu=1,
    params:
        folder=subpath(input.network, parent=True),
        data=[word for part in FLOW.train_parts for word in ("--data", part.argument)],
        device=device,
        seed=FLOW.seed_option,
    shell:
        "python 02_train/train.py {params.folder:q} --iterations {wildcards.iterations:q} {params.data:q}"
        " --device {params.device:q} {params.seed:q} 2>&1 | tee {log:q}"
