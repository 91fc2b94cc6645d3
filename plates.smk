# From frames of light microscopy to scored predictions of a plate:
#
#   01_data     index the frames as a plate, correct the light, find the foreground, measure grey values, split
#   02_train    train the network
#   03_predict  predict all positions
#   04_segment  score the test positions
#
#   snakemake --snakefile plates.smk --cores 2
#
# config/plates.yaml explains the keys of --config.


configfile: "config/plates.yaml"


include: "start.smk"


from emsuite.workflow.plates import PlateOrders, load_plate_plan

with errors_in_one_line():
    PLAN = load_plate_plan(config, PROJECT)
    ORDERS = PlateOrders(PLAN)
    if workflow.exec_mode == ExecMode.DEFAULT and not IS_LINT:
        ORDERS.write_all()


container: PLAN.config.container


rule all:
    default_target: True
    input:
        f"{PLAN.results}/scores.manifest.json",


if PLAN.config.plate is None:

    rule synthesize_plate:
        input:
            order=ORDERS.synthesize().files,
        output:
            f"{PLAN.frames}.manifest.json",
        log:
            f"{PLAN.log}/synthesize_plate.log",
        params:
            order=ORDERS.synthesize().digest,
            out=subpath(output[0], strip_suffix=".manifest.json"),
        shell:
            "EMSUITE_ORDER={params.order} python 01_data/synthesize_plate.py {params.out:q} 2>&1 | tee {log:q}"

    rule index_plate:
        input:
            order=ORDERS.index().files,
            frames=rules.synthesize_plate.output,
        output:
            f"{PLAN.plate}.manifest.json",
        log:
            f"{PLAN.log}/index_plate.log",
        threads: 8
        params:
            order=ORDERS.index().digest,
            frames=PLAN.frames,
            out=subpath(output[0], strip_suffix=".manifest.json"),
        shell:
            "EMSUITE_ORDER={params.order} python 01_data/index_plate.py {params.frames:q} {params.out:q} --workers {threads} 2>&1 | tee {log:q}"


rule preprocess:
    input:
        order=ORDERS.preprocess().files,
        plate=PLAN.plate_input,
    output:
        f"{PLAN.ready}.manifest.json",
    log:
        f"{PLAN.log}/preprocess.log",
    threads: 8
    params:
        order=ORDERS.preprocess().digest,
        plate=PLAN.plate,
        steps=PLAN.config.preprocess,
        out=subpath(output[0], strip_suffix=".manifest.json"),
        options=[f"--set={key}" for key in PLAN.config.set],
    shell:
        "EMSUITE_ORDER={params.order} python 01_data/preprocess.py {params.steps:q} --input {params.plate:q} --output {params.out:q} {params.options:q}"
        " --workers {threads} 2>&1 | tee {log:q}"


rule train_on_plate:
    input:
        order=ORDERS.train().files,
        ready=rules.preprocess.output,
    output:
        f"{PLAN.checkpoint}.manifest.json",
    log:
        f"{PLAN.log}/train.log",
    benchmark:
        f"{PLAN.log}/train.tsv"
    threads: 8
    resources:
        gpu=1,
    params:
        order=ORDERS.train().digest,
        folder=PLAN.folder,
        iterations=PLAN.iterations,
        data=PLAN.ready,
        device=device,
        if_changed=if_changed,
    shell:
        "EMSUITE_ORDER={params.order} python 02_train/train.py {params.folder:q} --iterations {params.iterations} --data {params.data:q}"
        " --device {params.device:q} --if-changed {params.if_changed} 2>&1 | tee {log:q}"


rule predict_images:
    input:
        order=ORDERS.predict().files,
        weights=rules.train_on_plate.output,
    output:
        f"{PLAN.results}/plate.zarr.manifest.json",
    log:
        f"{PLAN.log}/predict.log",
    benchmark:
        f"{PLAN.log}/predict.tsv"
    threads: 8
    resources:
        gpu=1,
    params:
        order=ORDERS.predict().digest,
        folder=PLAN.folder,
        iterations=PLAN.iterations,
        plate=PLAN.ready,
        out=subpath(output[0], strip_suffix=".manifest.json"),
        device=device,
    shell:
        "EMSUITE_ORDER={params.order} python 03_predict/predict_images.py {params.folder:q} --iteration {params.iterations} --plate {params.plate:q}"
        " --out {params.out:q} --workers {threads} --device {params.device:q} 2>&1 | tee {log:q}"


rule evaluate_images:
    input:
        order=ORDERS.evaluate().files,
        prediction=rules.predict_images.output[0],
    output:
        f"{PLAN.results}/scores.manifest.json",
    log:
        f"{PLAN.log}/evaluate.log",
    threads: 8
    params:
        order=ORDERS.evaluate().digest,
        prediction=subpath(input.prediction, strip_suffix=".manifest.json"),
        plate=PLAN.ready,
        masks=PLAN.mask_options,
        out=subpath(output[0], strip_suffix=".manifest.json"),
    shell:
        "EMSUITE_ORDER={params.order} python 04_segment/evaluate_images.py {params.prediction:q} --target {params.plate:q}/plate.zarr --out {params.out:q}"
        " --split {params.plate:q}/split.json --part test --baselines {params.masks} --workers {threads} 2>&1 | tee {log:q}"


onsuccess:
    settle(ORDERS)
