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
        data=" ".join(f"--data '{part.argument}'" for part in FLOW.train_parts),
        device=device,
        seed=FLOW.seed_option,
    shell:
        "python 02_train/train.py {params.folder} --iterations {wildcards.iterations} {params.data}"
        " --device {params.device} {params.seed} 2>&1 | tee {log}"
