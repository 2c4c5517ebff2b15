# A sweep file on a cluster, one job for each group of cells that train together:
#
#     snakemake --profile profiles/slurm --config sweep=FILE.yaml
#
# A job is `efvae sweep FILE.yaml --only ...`, so that the guarantees are those of the cell: what is recorded is skipped,
# a killed group continues, no cell is computed twice. The stamps below only tell Snakemake that a job has ended well;
# what is missing is asked of the records, each time.
import json
import subprocess
from pathlib import Path

PYTHON = config.get("python", ".venv/bin/python")
SWEEP = config.get("sweep")
STAMPS = Path("_build/sweeps/snakemake")

if not SWEEP:
    raise WorkflowError("which sweep? snakemake --profile profiles/slurm --config sweep=FILE.yaml")
planned = subprocess.run([PYTHON, "-m", "efvae", "sweep", SWEEP, "--dry-run", "--json"], capture_output=True, text=True)
if planned.returncode:
    raise WorkflowError(planned.stderr.strip() or "the sweep cannot be planned")
GROUPS = {group["group"]: group for group in json.loads(planned.stdout)}
MISSING = [name for name, group in GROUPS.items() if not group["recorded"]]
if workflow.is_main_process:
    for name in MISSING:  # of a record that has been removed since
        (STAMPS / f"{name}.done").unlink(missing_ok=True)


wildcard_constraints:
    group="[0-9a-f]{8}",


localrules:
    all,


rule all:
    input:
        [STAMPS / f"{name}.done" for name in MISSING],


rule group:
    output:
        touch(STAMPS / "{group}.done"),
    log:
        STAMPS / "{group}.log",
    params:
        cells=lambda wildcards: ",".join(GROUPS[wildcards.group]["cells"]),
        python=PYTHON,
        sweep=SWEEP,
    threads: int(config.get("threads", 1))
    resources:
        runtime=int(config.get("minutes", 240)),
        mem_mb=int(config.get("memory", 4000)),
    shell:
        "{params.python:q} -m efvae sweep {params.sweep:q} --only {params.cells} --threads {threads} > {log} 2>&1"
