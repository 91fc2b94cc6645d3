# From foreground, contours and distances to scored instances: for networks that predict these, and no affinities.

from emsuite.segmentation.instances.settings import InstanceSettings


rule decode_instances:
    input:
        order=order_file(lambda wildcards: ORDERS.decode_instances(wildcards.part)),
        prediction=f"{RESULT}/prediction.zarr.manifest.json",
    output:
        segmentation=f"{RESULT}/segmentation.zarr.manifest.json",
    log:
        f"{RESULT}/log/decode_instances.log",
    benchmark:
        f"{RESULT}/log/decode_instances.tsv"
    threads: PLAN.config.threads
    params:
        order=order_digest(lambda wildcards: ORDERS.decode_instances(wildcards.part)),
        heads=[
            word
            for target, head in PLAN.instance_heads.items()
            for word in (f"--{target}", f"{RESULT}/prediction.zarr/{head}")
        ],
        out=subpath(output.segmentation, strip_suffix=".manifest.json"),
        options=as_options(PLAN.segmentation.instances, InstanceSettings)
        + as_options(PLAN.segmentation, ["block_size"]),
        workers=lambda wildcards, threads: PLAN.workers_option(threads),
    shell:
        "EMSUITE_ORDER={params.order} python 04_segment/decode_instances.py {params.heads:q} --out {params.out:q}"
        " {params.options:q} {params.workers:q} 2>&1 | tee {log:q}"


include: "evaluate.smk"
