# From a labelled volume in one look to scored instances in another look of the same kind of tissue:
#
#   01_data     change the look, where config says so
#   02_train    train domain transfer: look A to look B
#   03_predict  give the labelled images look B
#   01_data     pair them with their labels
#   02_train    train a segmenter on the pairs
#   03_predict  predict images of look B
#   04_segment  decode instances, score them
#
#   snakemake --snakefile transfer.smk --cores 2
#
# config/transfer.yaml explains the keys of --config.


configfile: "config/transfer.yaml"


import sys
from pathlib import Path

PROJECT = Path(str(workflow.current_basedir)).resolve()
sys.path.insert(0, str(PROJECT / "src"))
from emsuite.common.errors import EmsuiteError
from emsuite.workflow.environment import BEFORE_STEPS, run_with_own_python
from emsuite.workflow.transfer import load_transfer_plan

run_with_own_python()
shell.prefix(BEFORE_STEPS)

try:
    # snakemake --lint runs without volumes
    PLAN = load_transfer_plan(config, PROJECT, reads_volumes="--lint" not in sys.argv)
except EmsuiteError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)

ARM = PLAN.segmenter_results("{run}")
RUNS = {PLAN.arm_run(arm): arm for arm in PLAN.config.arms}


def device(wildcards, resources):
    """Return the device that computes; another one runs nothing again."""
    return PLAN.config.device


def arm_of(wildcards):
    """Return the arm of a segmenter's run."""
    return RUNS[wildcards.run]


container: PLAN.config.container


wildcard_constraints:
    run="|".join(RUNS),
    look="|".join(PLAN.looks) or "none",


rule all:
    default_target: True
    input:
        expand(f"{ARM}/scores.csv", run=RUNS),


if PLAN.config.look:

    rule change_look:
        input:
            lambda wildcards: PLAN.looks[wildcards.look][0],
        output:
            f"{PLAN.volume('{look}')}.manifest.json",
        log:
            f"{PLAN.volume('{look}').parent}/log/{{look}}.log",
        params:
            out=subpath(output[0], strip_suffix=".manifest.json"),
            look=PLAN.config.look,
            roi=lambda wildcards: f"--roi={PLAN.looks[wildcards.look][1]}",
            labels=lambda wildcards: (
                "--no-labels" if wildcards.look == "b" else "--labels"
            ),
            options=[f"--set={key}" for key in PLAN.config.set],
        shell:
            "python 01_data/degrade.py {input:q} {params.out:q} --look {params.look} {params.roi:q} {params.labels}"
            " {params.options:q} 2>&1 | tee {log:q}"


rule train_transfer:
    input:
        b=PLAN.waited_for("b"),
        a=PLAN.config.labelled,
        networks=PLAN.network_files(PLAN.config.transfer),
    output:
        f"{PLAN.transfer_folder}/checkpoints/checkpoint_{PLAN.transfer_iterations}.pt.manifest.json",
    log:
        f"{PLAN.results}/log/train_transfer.log",
    benchmark:
        f"{PLAN.results}/log/train_transfer.tsv"
    threads: 8
    resources:
        gpu=1,
    params:
        folder=PLAN.transfer_folder,
        iterations=PLAN.transfer_iterations,
        domains=PLAN.domains,
        device=device,
    shell:
        "python 02_train/train.py {params.folder:q} --iterations {params.iterations} {params.domains:q}"
        " --device {params.device:q} 2>&1 | tee {log:q}"


rule transfer:
    input:
        rules.train_transfer.output,
    output:
        f"{PLAN.results}/transferred.zarr.manifest.json",
    log:
        f"{PLAN.results}/log/transfer.log",
    threads: 8
    resources:
        gpu=1,
    params:
        folder=PLAN.transfer_folder,
        iterations=PLAN.transfer_iterations,
        domains=PLAN.domains,
        raw=f"{PLAN.config.labelled}/volumes/raw",
        roi=f"--roi={PLAN.config.labelled_roi}",
        out=subpath(output[0], strip_suffix=".manifest.json"),
        device=device,
    shell:
        "python 03_predict/predict.py {params.folder:q} {params.iterations} --direction A2B --raw {params.raw:q}"
        " {params.roi:q} --out {params.out:q} {params.domains:q} --device {params.device:q} 2>&1 | tee {log:q}"


rule pair:
    input:
        rules.transfer.output,
    output:
        f"{PLAN.results}/pairs.zarr.manifest.json",
    log:
        f"{PLAN.results}/log/pair.log",
    params:
        image=f"{PLAN.results}/transferred.zarr/image",
        labels=f"{PLAN.config.labelled}/volumes/labels/neuron_ids",
        out=subpath(output[0], strip_suffix=".manifest.json"),
    shell:
        "python 01_data/write_pairs.py {params.image:q} {params.labels:q} {params.out:q} 2>&1 | tee {log:q}"


rule train_segmenter:
    input:
        data=lambda wildcards: PLAN.training_input(arm_of(wildcards)),
        networks=PLAN.network_files(PLAN.config.segmenter),
    output:
        f"{PLAN.segmenter_folder('{run}')}/checkpoints/checkpoint_{PLAN.segmenter_iterations}.pt.manifest.json",
    log:
        f"{ARM}/log/train.log",
    benchmark:
        f"{ARM}/log/train.tsv"
    threads: 8
    resources:
        gpu=1,
    params:
        folder=lambda wildcards: PLAN.segmenter_folder(wildcards.run),
        iterations=PLAN.segmenter_iterations,
        data=lambda wildcards: PLAN.training_volume(arm_of(wildcards)),
        device=device,
    shell:
        "python 02_train/train.py {params.folder:q} --iterations {params.iterations} --data {params.data:q}"
        " --device {params.device:q} 2>&1 | tee {log:q}"


rule predict:
    input:
        weights=rules.train_segmenter.output,
        test=PLAN.waited_for("test"),
    output:
        f"{ARM}/prediction.zarr.manifest.json",
    log:
        f"{ARM}/log/predict.log",
    threads: 8
    resources:
        gpu=1,
    params:
        folder=lambda wildcards: PLAN.segmenter_folder(wildcards.run),
        iterations=PLAN.segmenter_iterations,
        raw=f"{PLAN.volume('test')}/volumes/raw",
        roi=f"--roi={PLAN.config.test_roi}",
        out=subpath(output[0], strip_suffix=".manifest.json"),
        device=device,
    shell:
        "python 03_predict/predict.py {params.folder:q} {params.iterations} --raw {params.raw:q} {params.roi:q}"
        " --out {params.out:q} --device {params.device:q} 2>&1 | tee {log:q}"


rule decode_instances:
    input:
        rules.predict.output,
    output:
        f"{ARM}/segmentation.zarr.manifest.json",
    log:
        f"{ARM}/log/decode_instances.log",
    threads: 8
    params:
        heads=[
            word
            for target, head in PLAN.instance_heads.items()
            for word in (f"--{target}", f"{ARM}/prediction.zarr/{head}")
        ],
        options=PLAN.decoding_options,
        out=subpath(output[0], strip_suffix=".manifest.json"),
    shell:
        "python 04_segment/decode_instances.py {params.heads:q} --out {params.out:q} {params.options:q} --workers {threads}"
        " 2>&1 | tee {log:q}"


rule evaluate:
    input:
        rules.decode_instances.output,
    output:
        csv=f"{ARM}/scores.csv",
        json=f"{ARM}/scores.json",
        report=f"{ARM}/report.html",
    log:
        f"{ARM}/log/evaluate.log",
    threads: 8
    params:
        segmentation=f"{ARM}/segmentation.zarr/segmentation",
        labels=f"{PLAN.volume('test')}/volumes/labels/neuron_ids",
        raw=f"{PLAN.volume('test')}/volumes/raw",
        roi=f"--roi={PLAN.config.test_roi}",
        out=subpath(output.csv, parent=True),
    shell:
        "python 04_segment/evaluate.py --segmentation {params.segmentation:q} --labels {params.labels:q}"
        " --raw {params.raw:q} {params.roi:q} --workers {threads} --out {params.out:q} 2>&1 | tee {log:q}"
