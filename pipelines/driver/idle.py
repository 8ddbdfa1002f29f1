"""A night with nothing to do: known from the output and the manifest alone, before any model or GPU is asked for."""

from pathlib import Path

from diffcolor.base_folder import read_base_folder
from diffcolor.errors import BaseModelError
from diffcolor.identity import weights_digest
from pipelines.errors import DamagedFileError
from pipelines.job import JobRequest
from pipelines.ledger.identity import settings_digest
from pipelines.ledger.job_file import Heartbeat, JobFile
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.manifest_summary import ManifestSummary
from pipelines.ledger.results import FAILED, OK, SKIPPED
from pipelines.progress import RunState
from pipelines.version import software


def nothing_to_do(request: JobRequest, manifest: ManifestSummary, ledger: Ledger) -> Heartbeat | None:
    """What a run would say at its end, where the output has an outcome for every row already; else None.

    Models are taken to be the job's where their names are and the program is the same version; weights in a folder are
    read again, those of a hub are not.
    """
    if request.retry_failed or request.dry_run:
        return None
    try:
        job = ledger.read_job()
        if job.previous or not job.models or not _same_models(request, job):
            return None
        plan = manifest.digest.plan_id(settings_digest(job.models, request.spec.config, request.spec.outputs))
        if plan != job.plan or ledger.open_generations(plan):
            return None
        counts = ledger.counts(plan)
    except (FileNotFoundError, DamagedFileError):
        return None
    if sum(counts.values()) < manifest.rows or ledger.results(plan).shards() != set(ledger.closed(plan)):
        return None
    return Heartbeat(plan=plan, state=RunState.finished, ok=counts[OK], failed=counts[FAILED], skipped=counts[SKIPPED])


def _same_models(request: JobRequest, job: JobFile) -> bool:
    """Whether the request's models are those that the job had."""
    if job.models is None or job.software != software() or job.software.endswith("+)"):
        return False
    base, judge = request.spec.base_model, request.spec.judge
    if (base, judge) != (job.base_model, job.judge):
        return False
    if Path(judge).is_dir() and weights_digest(Path(judge))[0] != job.models.judge_digest:
        return False
    try:
        return not Path(base).is_dir() or job.models.base_model_digest in read_base_folder(base, Path(base)).digests()
    except BaseModelError:
        return False
