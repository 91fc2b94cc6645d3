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


include: "start.smk"


from emsuite.evaluation.summary import summary
from emsuite.workflow.transfer import load_transfer_plan
from emsuite.workflow.transfer_orders import TransferOrders

with errors_in_one_line():
    PLAN = load_transfer_plan(config, PROJECT, reads_volumes=not IS_LINT)
    ORDERS = TransferOrders(PLAN)
    if workflow.exec_mode == ExecMode.DEFAULT and not IS_LINT:
        ORDERS.write_all()
        for path in ORDERS.changed_inputs():
            tell_changed(path)

ARM = PLAN.segmenter_results("{run}")
RUNS = {PLAN.arm_run(arm): arm for arm in PLAN.config.arms}


container: PLAN.config.container


wildcard_constraints:
    run="|".join(RUNS),
    look="|".join(PLAN.looks) or "none",


rule all:
    default_target: True
    input:
        expand(
            f"{ARM}/{{file}}",
            run=RUNS,
            file=["scores.csv", "scores.json", "report.html"],
        ),


if PLAN.config.look:

    rule change_look:
        input:
            order=order_file(lambda wildcards: ORDERS.look(wildcards.look)),
        output:
            f"{PLAN.volume('{look}')}.manifest.json",
        log:
            f"{PLAN.volume('{look}').parent}/log/{{look}}.log",
        params:
            order=order_digest(lambda wildcards: ORDERS.look(wildcards.look)),
            source=lambda wildcards: PLAN.looks[wildcards.look][0],
            out=subpath(output[0], strip_suffix=".manifest.json"),
            look=PLAN.config.look,
            roi=lambda wildcards: f"--roi={PLAN.looks[wildcards.look][1]}",
            labels=lambda wildcards: (
                "--no-labels" if wildcards.look == "b" else "--labels"
            ),
            options=[f"--set={key}" for key in PLAN.config.set],
        shell:
            "EMSUITE_ORDER={params.order} python 01_data/degrade.py {params.source:q} {params.out:q} --look {params.look} {params.roi:q} {params.labels}"
            " {params.options:q} 2>&1 | tee {log:q}"


rule train_transfer:
    input:
        order=ORDERS.train_transfer().files,
        b=PLAN.waited_for("b"),
    output:
        f"{PLAN.transfer_checkpoint}.manifest.json",
    log:
        f"{PLAN.results}/log/train_transfer.log",
    benchmark:
        f"{PLAN.results}/log/train_transfer.tsv"
    threads: 8
    resources:
        gpu=1,
    params:
        order=ORDERS.train_transfer().digest,
        folder=PLAN.transfer_folder,
        iterations=PLAN.transfer_iterations,
        domains=PLAN.domains,
        device=device,
        if_changed=if_changed,
    shell:
        "EMSUITE_ORDER={params.order} python 02_train/train.py {params.folder:q} --iterations {params.iterations} {params.domains:q}"
        " --device {params.device:q} --if-changed {params.if_changed} 2>&1 | tee {log:q}"


rule transfer:
    input:
        order=ORDERS.transfer().files,
        weights=rules.train_transfer.output,
    output:
        f"{PLAN.results}/transferred.zarr.manifest.json",
    log:
        f"{PLAN.results}/log/transfer.log",
    threads: 8
    resources:
        gpu=1,
    params:
        order=ORDERS.transfer().digest,
        folder=PLAN.transfer_folder,
        iterations=PLAN.transfer_iterations,
        domains=PLAN.domains,
        raw=f"{PLAN.config.labelled}/volumes/raw",
        roi=f"--roi={PLAN.config.labelled_roi}",
        out=subpath(output[0], strip_suffix=".manifest.json"),
        device=device,
    shell:
        "EMSUITE_ORDER={params.order} python 03_predict/predict.py {params.folder:q} {params.iterations} --direction A2B --raw {params.raw:q}"
        " {params.roi:q} --out {params.out:q} {params.domains:q} --device {params.device:q} 2>&1 | tee {log:q}"


rule pair:
    input:
        order=ORDERS.pair().files,
        images=rules.transfer.output,
    output:
        f"{PLAN.results}/pairs.zarr.manifest.json",
    log:
        f"{PLAN.results}/log/pair.log",
    params:
        order=ORDERS.pair().digest,
        image=f"{PLAN.results}/transferred.zarr/image",
        labels=f"{PLAN.config.labelled}/volumes/labels/neuron_ids",
        out=subpath(output[0], strip_suffix=".manifest.json"),
    shell:
        "EMSUITE_ORDER={params.order} python 01_data/write_pairs.py {params.image:q} {params.labels:q} {params.out:q} 2>&1 | tee {log:q}"


rule train_segmenter:
    input:
        order=order_file(lambda wildcards: ORDERS.train_segmenter(RUNS[wildcards.run])),
        data=lambda wildcards: PLAN.training_input(RUNS[wildcards.run]),
    output:
        f"{PLAN.segmenter_checkpoint('{run}')}.manifest.json",
    log:
        f"{ARM}/log/train.log",
    benchmark:
        f"{ARM}/log/train.tsv"
    threads: 8
    resources:
        gpu=1,
    params:
        order=order_digest(
            lambda wildcards: ORDERS.train_segmenter(RUNS[wildcards.run])
        ),
        folder=lambda wildcards: PLAN.segmenter_folder(wildcards.run),
        iterations=PLAN.segmenter_iterations,
        data=lambda wildcards: PLAN.training_volume(RUNS[wildcards.run]),
        device=device,
        if_changed=if_changed,
    shell:
        "EMSUITE_ORDER={params.order} python 02_train/train.py {params.folder:q} --iterations {params.iterations} --data {params.data:q}"
        " --device {params.device:q} --if-changed {params.if_changed} 2>&1 | tee {log:q}"


rule predict:
    input:
        order=order_file(lambda wildcards: ORDERS.predict(RUNS[wildcards.run])),
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
        order=order_digest(lambda wildcards: ORDERS.predict(RUNS[wildcards.run])),
        folder=lambda wildcards: PLAN.segmenter_folder(wildcards.run),
        iterations=PLAN.segmenter_iterations,
        raw=f"{PLAN.volume('test')}/volumes/raw",
        roi=f"--roi={PLAN.config.test_roi}",
        out=subpath(output[0], strip_suffix=".manifest.json"),
        device=device,
    shell:
        "EMSUITE_ORDER={params.order} python 03_predict/predict.py {params.folder:q} {params.iterations} --raw {params.raw:q} {params.roi:q}"
        " --out {params.out:q} --device {params.device:q} 2>&1 | tee {log:q}"


rule decode_instances:
    input:
        order=order_file(lambda wildcards: ORDERS.decode_instances(RUNS[wildcards.run])),
        prediction=rules.predict.output,
    output:
        f"{ARM}/segmentation.zarr.manifest.json",
    log:
        f"{ARM}/log/decode_instances.log",
    threads: 8
    params:
        order=order_digest(
            lambda wildcards: ORDERS.decode_instances(RUNS[wildcards.run])
        ),
        heads=[
            word
            for target, head in PLAN.instance_heads.items()
            for word in (f"--{target}", f"{ARM}/prediction.zarr/{head}")
        ],
        options=PLAN.decoding_options,
        workers=lambda wildcards, threads: PLAN.workers_option(threads),
        out=subpath(output[0], strip_suffix=".manifest.json"),
    shell:
        "EMSUITE_ORDER={params.order} python 04_segment/decode_instances.py {params.heads:q} --out {params.out:q} {params.options:q} {params.workers:q}"
        " 2>&1 | tee {log:q}"


rule evaluate:
    input:
        order=order_file(lambda wildcards: ORDERS.evaluate(RUNS[wildcards.run])),
        segmentation=rules.decode_instances.output,
    output:
        csv=f"{ARM}/scores.csv",
        json=f"{ARM}/scores.json",
        report=f"{ARM}/report.html",
    log:
        f"{ARM}/log/evaluate.log",
    threads: 8
    params:
        order=order_digest(lambda wildcards: ORDERS.evaluate(RUNS[wildcards.run])),
        segmentation=f"{ARM}/segmentation.zarr/segmentation",
        labels=f"{PLAN.volume('test')}/volumes/labels/neuron_ids",
        raw=f"{PLAN.volume('test')}/volumes/raw",
        mask=PLAN.mask_option,
        roi=f"--roi={PLAN.config.test_roi}",
        scoring=PLAN.scoring_options,
        workers=lambda wildcards, threads: PLAN.workers_option(threads),
        out=subpath(output.csv, parent=True),
    shell:
        "EMSUITE_ORDER={params.order} python 04_segment/evaluate.py --segmentation {params.segmentation:q} --labels {params.labels:q}"
        " --raw {params.raw:q} {params.mask:q} {params.roi:q} {params.scoring:q} {params.workers:q} --out {params.out:q} 2>&1 | tee {log:q}"


onstart:
    ORDERS.note_inputs(only_if_new=True)


onsuccess:
    settle(ORDERS)
    ORDERS.note_inputs()
    scored = {PLAN.segmenter_results(run): arm for run, arm in RUNS.items()}
    viewer = ".venv/bin/python 04_segment/view.py"
    print(summary(list(scored), viewer, scored), flush=True)
