# From a raw EM volume to a scored neuron segmentation:
#
#   01_data     fetch or synthesize the volumes, mask unlabelled voxels
#   02_train    train the network up to an iteration
#   03_predict  predict affinities and LSDs of the test volumes
#   04_segment  fragments -> region graph -> segments -> scores and report; or instances -> scores and report
#
#   snakemake --cores 2 --config dataset=fib25 network=small
#
# config/config.yaml explains the keys of --config.


configfile: "config/config.yaml"


include: "start.smk"
include: "common.smk"


report: "workflow/report/workflow.rst"


container: PLAN.image.location


include: "01_data/data.smk"
include: "02_train/train.smk"
include: "03_predict/predict.smk"


if PLAN.instance_heads:

    include: "04_segment/instances.smk"

else:

    include: "04_segment/segment.smk"


rule all:
    default_target: True
    input:
        expand(
            f"{RESULT}/{{file}}",
            part=PLAN.test_parts,
            file=["scores.csv", "scores.json", "errors.csv", "report.html"],
        ),
        expand(f"{RESULT}/segmentation.zarr.manifest.json", part=PLAN.test_parts),


onstart:
    note_inputs(PLAN, only_if_new=True)


onsuccess:
    settle(ORDERS)
    note_inputs(PLAN)
    print(run_summary(PLAN, ".venv/bin/python 04_segment/view.py"), flush=True)
