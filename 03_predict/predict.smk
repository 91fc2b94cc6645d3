# Prediction of the parts that the network is scored on.


rule predict:
    input:
        order=order_file(lambda wildcards: ORDERS.predict(wildcards.part)),
        trained=str(PLAN.checkpoint_manifest()),
        volume=lambda wildcards: PLAN.volumes.manifest(part_of(wildcards).volume),
        # Masks are not read. They are waited for, as they are written into the volume.
        masks=lambda wildcards: waited_for(
            ORDERS.predict(wildcards.part), PLAN.volumes.masks([part_of(wildcards)])
        ),
    output:
        f"{RESULT}/prediction.zarr.manifest.json",
    log:
        f"{RESULT}/log/predict.log",
    benchmark:
        f"{RESULT}/log/predict.tsv"
    threads: PLAN.config.threads
    resources:
        gpu=1,
    params:
        network=PLAN.network_folder,
        order=order_digest(lambda wildcards: ORDERS.predict(wildcards.part)),
        iterations=PLAN.iterations,
        raw=lambda wildcards: part_of(wildcards).volume / "volumes/raw",
        roi=lambda wildcards: as_options(part_of(wildcards), ["roi"]),
        out=subpath(output[0], strip_suffix=".manifest.json"),
        device=device,
    shell:
        "EMSUITE_ORDER={params.order} python 03_predict/predict.py {params.network:q} --iteration {params.iterations:q} --raw {params.raw:q}"
        " {params.roi:q} --out {params.out:q} --device {params.device:q} 2>&1 | tee {log:q}"
