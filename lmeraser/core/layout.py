"""Where everything lies in a project's folder: each path once. dvc.yaml names the same paths (a test compares them)."""

from dataclasses import dataclass
from pathlib import Path

from lmeraser.core.errors import ProjectError

LEDGER_VARIABLE = "LMERASER_LEDGER_URL"  # a PostgreSQL ledger; it may hold a password, so it is no param

EXPORT_FILE = "export.json"


@dataclass(frozen=True)
class Layout:
    root: Path

    @classmethod
    def find(cls, start: Path) -> "Layout":
        """The project that holds `start`: the nearest folder upwards with dvc.yaml and params.yaml."""
        for folder in (start.resolve(), *start.resolve().parents):
            if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
                return cls(folder)
        raise ProjectError(
            "no project here: neither this folder nor one above it holds dvc.yaml and params.yaml; "
            "change to the project's folder and retry"
        )

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def lock(self) -> Path:
        """Of dvc.yaml. With many slots there are others beside it: `pipeline.locks` knows all of them."""
        return self.root / "dvc.lock"

    @property
    def erased(self) -> Path:
        return self.root / "data" / "erased.json"

    @property
    def erased_memory(self) -> Path:
        """What this machine itself remembers of the list, whatever branch of git is checked out."""
        return self.private_state / "erased.json"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def public(self) -> Path:
        return self.artifacts / "split" / "public.parquet"

    @property
    def private(self) -> Path:
        return self.artifacts / "split" / "private"

    def part(self, name: str) -> Path:
        return self.private / f"{name}.parquet"

    @property
    def backbone(self) -> Path:
        return self.artifacts / "pretrain" / "backbone.safetensors"

    @property
    def skeleton(self) -> Path:
        return self.artifacts / "skeleton" / "skeleton.safetensors"

    @property
    def recipe(self) -> Path:
        return self.artifacts / "recipe" / "recipe.json"

    def leaves(self, part: str) -> Path:
        return self.artifacts / "embed" / part / "leaves.parquet"

    def sums(self, part: str) -> Path:
        return self.artifacts / "embed" / part / "sums.safetensors"

    @property
    def clusters(self) -> Path:
        return self.artifacts / "cluster"

    @property
    def sizes(self) -> Path:
        """The table of clusters."""
        return self.clusters / "clusters.json"

    def members(self, slot: str) -> Path:
        return self.clusters / "members" / f"{slot}.parquet"

    @property
    def router(self) -> Path:
        return self.clusters / "router.safetensors"

    @property
    def validation(self) -> Path:
        return self.artifacts / "validate"

    def tuned(self, slot: str) -> Path:
        return self.artifacts / "tune" / f"{slot}.safetensors"

    @property
    def head(self) -> Path:
        return self.artifacts / "head" / "head.safetensors"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics"

    @property
    def private_state(self) -> Path:
        """Requests, keys and logs of this machine: never in git, folder mode 0700."""
        return self.root / ".lmeraser"

    @property
    def ledger(self) -> Path:
        """The SQLite ledger, where no other is named."""
        return self.private_state / "ledger.db"

    @property
    def object_index(self) -> Path:
        """What a scan knows of the objects of the stores, as keyed digests; personal data in a weak sense."""
        return self.private_state / "objects.index"

    @property
    def unchanged(self) -> Path:
        """Fingerprints of the stages that DVC found up to date, as digests."""
        return self.private_state / "unchanged.json"

    @property
    def audit_key(self) -> Path:
        """Draws which objects have their turn in a part of the full scan."""
        return self.private_state / "audit.key"

    @property
    def workspace_lock(self) -> Path:
        """Held by the one process that changes the project."""
        return self.private_state / "workspace.lock"

    @property
    def quarantine(self) -> Path:
        """The pointer that says what is left out while requests are open."""
        return self.private_state / "quarantine.json"

    @property
    def quarantine_lock(self) -> Path:
        return self.private_state / "quarantine.lock"

    @property
    def quarantine_copies(self) -> Path:
        """Copies of the artifacts (hard links), one folder each."""
        return self.private_state / "quarantine"

    @property
    def remembered(self) -> Path:
        """Features of private test images that `evaluate` keeps; personal data."""
        return self.private_state / "remembered"

    def lock_copies(self, batch_id: str) -> Path:
        """Copies of the locks from before a batch."""
        return self.private_state / f"{batch_id}.locks"

    def before(self, batch_id: str) -> Path:
        """The state before a batch (hard links), from which stages are updated."""
        return self.private_state / f"{batch_id}.before"

    @property
    def restored_locks(self) -> Path:
        """Copies of locks as a restore brought them, until the stores are cleared: they tell what was made of what."""
        return self.private_state / "restored"

    @property
    def newcomers(self) -> Path:
        """Where people would stand who are to come, as counts."""
        return self.private_state / "newcomers.json"

    def moves(self, token: str) -> Path:
        """Of whom records leave, and where they come to stand; personal data, for as long as it is asked."""
        return self.private_state / f"moves-{token}.json"

    def near(self, token: str) -> Path:
        """Whose near copies are looked for, and what was found; personal data, for as long as it is asked."""
        return self.private_state / f"near-{token}.json"

    @property
    def known_environment(self) -> Path:
        """What this machine told of its environment last."""
        return self.private_state / "environment.json"

    @property
    def error_report(self) -> Path:
        """Where a stage leaves the line of its failure."""
        return self.private_state / "error.json"

    @property
    def clone_marker(self) -> Path:
        """Marks a clone whose worker may delete everything in it."""
        return self.private_state / "clone"

    @property
    def stage_lock(self) -> Path:
        """Held by every stage that writes."""
        return self.private_state / "stage.lock"

    @property
    def handed_out(self) -> Path:
        """Names the job whose stages workers of this folder may run now."""
        return self.private_state / "handed-out"

    @property
    def warm(self) -> Path:
        """Sockets of the processes that stay warm."""
        return self.private_state / "warm"

    @property
    def forks(self) -> Path:
        """Socket of the process that forks a copy of itself for commands of DVC."""
        return self.warm / "dvc.fork"

    @property
    def certificates(self) -> Path:
        return self.root / "certificates"

    @property
    def timestamps(self) -> Path:
        """How asking the time-stamp authority goes: tries, the next one, the last problem."""
        return self.private_state / "timestamps.json"

    @property
    def timestamps_lock(self) -> Path:
        """Held by whoever asks the time-stamp authority."""
        return self.private_state / "timestamps.lock"

    @property
    def public_keys(self) -> Path:
        """Public keys that certificates are checked with; in git."""
        return self.root / "data" / "certificate-keys.pem"

    @property
    def export(self) -> Path:
        """The signed statement of a folder that `lmeraser export` wrote; in no project."""
        return self.root / EXPORT_FILE

    @property
    def is_export(self) -> bool:
        return self.export.is_file()

    @property
    def project_id(self) -> Path:
        """Which project certificates are about; in git, beside the keys."""
        return self.root / "data" / "project-id"
