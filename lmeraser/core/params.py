"""params.yaml as typed values: each once, with its unit and range; no default lives in code.

An unknown, misspelt or missing key is an error that names the nearest known one. A section has the name of the stage
that reads it.
"""

import difflib
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lmeraser.core.errors import ParamsError, SlotError
from lmeraser.core.strict_yaml import strict_yaml

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,15}$")]
MOST_SHARDS = 4096  # of a part: each costs a stat, and a line of DVC's manifest
Precision = Literal["auto", "float32", "bfloat16"]  # auto: bfloat16 where the processor has instructions for it


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Source(Section):
    kind: Literal["digits", "manifest"]
    path: str
    erase: bool  # also delete an erased person's rows and files from the source


DataSet = Literal["cifar10", "cifar100", "svhn", "gtsrb"]


class PublishedSource(Section):
    """Published data sets as torchvision lays them out; each image is its own subject (docs/decisions/0017)."""

    kind: Literal["torchvision"]
    path: str  # torchvision's root, the folder that holds the data sets' own folders
    public: DataSet
    private: DataSet
    public_limit: Positive | None  # records, chosen by a hash of their names; null: all
    private_limit: Positive | None  # records, the same share of train and test; null: all
    erase: bool  # only false: a published data set cannot be erased from

    @model_validator(mode="after")
    def _apart(self) -> "PublishedSource":
        if self.public == self.private:
            raise ValueError(f"source.public and source.private are both {self.public}, expected two data sets")
        return self


class ImageParams(Section):
    size: Annotated[int, Field(ge=8, le=1024)]  # px, side of the network's square input
    channels: Literal[1, 3]  # 1 grey, 3 RGB
    interpolation: Literal["bilinear", "bicubic"]  # of the resize to `size`
    crop: Annotated[float, Field(ge=0.5, le=1)]  # share of the side that is kept, about the centre (timm's crop_pct)
    max_pixels: Positive  # larger images are refused


HUB = "hub"  # pretrain.weights.file: the file that timm names, as the local Hugging Face cache holds it


class Weights(Section):
    """A backbone that was trained elsewhere, pinned by the digest of its file (docs/decisions/0018)."""

    file: Annotated[str, Field(min_length=1)]  # a safetensors file, or HUB
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None  # null: not known yet; `pretrain` tells it and stops


class Pretrain(Section):
    model: str  # any name that timm knows
    kwargs: dict[str, Any]  # handed to timm.create_model
    weights: Weights | None  # null: trained here, on the public records
    small_stem: bool  # 3x3 first convolution and no max-pool (ResNets), for inputs of 64 px and less
    epochs: Annotated[int, Field(ge=0)]  # 0 with weights and only then: they are taken as they are
    batch: Positive  # records
    peak_rate: Rate  # one-cycle peak of SGD's learning rate
    weight_decay: NonNegative
    shift_px: Annotated[int, Field(ge=0)]  # random shift of a training image, each way
    flip: bool  # random left-right flip
    precision: Precision

    @model_validator(mode="after")
    def _one_origin(self) -> "Pretrain":
        if self.weights and self.epochs:
            raise ValueError(f"pretrain.epochs is {self.epochs}, expected 0 with pretrain.weights: they are taken as they are")
        if self.weights and self.small_stem:
            raise ValueError(
                "pretrain.small_stem is true, expected false with pretrain.weights: given weights belong to the usual stem"
            )
        if not self.weights and not self.epochs:
            raise ValueError(
                "pretrain.epochs is 0, expected at least 1, or pretrain.weights: an untrained backbone cannot tell classes apart"
            )
        return self


class Features(Section):
    """What is taken of the frozen network, in one pass (docs/decisions/0026)."""

    depths: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)]  # blocks beside the network's own row, from 0
    grid: Annotated[int, Field(ge=1, le=8)]  # cells a side over each of which a block's map is averaged
    dim: Positive | None  # public principal axes onto which all of it is projected; None: it is taken as it is

    @model_validator(mode="after")
    def _ascending(self) -> "Features":
        if list(self.depths) != sorted(set(self.depths)):
            raise ValueError(f"features.depths is {list(self.depths)}, expected each block once, from the first to the last")
        return self


class Skeleton(Section):
    leaves: Positive  # public leaves of the hierarchy, at most as many as there are slots
    scale_floor: Share  # least scale of a feature, as a share of the mean scale


class Projection(Section):
    kind: Literal["plain", "fourier"]  # what the global head sums: the features themselves, or random Fourier features of them
    dim: Positive  # random Fourier features
    levels: Annotated[int, Field(ge=1, le=2047)]  # each is rounded to a whole number in [-levels, levels]
    bandwidth: Rate  # in units of the median distance between public records


class Embed(Section):
    batch: Positive  # records in a forward pass, always full (padded)


class Cluster(Section):
    # tree: by features; random: by a hash of the unit; anchors: the paper's average linkage of private anchors
    method: Literal["tree", "random", "anchors"]
    unit: Literal["subject", "record"]  # what goes to a cluster as a whole
    n_max: Positive  # private training records above which a node is split
    n_min: Annotated[int, Field(ge=0)]  # no split leaves a cluster of fewer (but none) records
    max_diversity: Rate  # share of the public variance above which a node is split
    anchors: Positive  # units, for method anchors
    k: Positive  # clusters, for method anchors


class Tune(Section):
    kind: Literal["sgd", "closed", "none"]  # closed: solved from sums; none: the global head answers alone
    pull: Rate  # closed: records that the global mean of a label counts for in a cluster
    epochs: Positive
    batch: Positive  # records; halved down to min_batch for small clusters
    min_batch: Positive
    frame_px: Annotated[int, Field(ge=0)]  # width of the prompt's border, px of the network's input; 0: head alone
    frame_rate: NonNegative  # learning rates of SGD
    head_rate: Rate
    head_decay: NonNegative
    momentum: Annotated[float, Field(ge=0, lt=1)]
    warmup: Share  # share of the steps with a rising rate, before the cosine
    shift_px: Annotated[int, Field(ge=0)]
    flip: bool
    precision: Precision


class Head(Section):
    kind: Literal["discriminant", "ridge"]
    shrinkage: Rate | None  # discriminant: records a label that the mean variance counts for; None: chosen on public records
    evenness: Share | None  # discriminant: 0: labels lie as far from their middle as their means; 1: all alike; None: chosen
    temperature: Rate | None  # discriminant: of the softmax, times (labels' mean squared distance)^0.75; None: chosen
    priors: Literal["records", "even"]  # discriminant: of a label, before an image is seen
    ridge: Rate  # ridge: times the number of records


class Serve(Section):
    nearest: Positive  # clusters whose answers are averaged
    temperature: Rate  # of exp(-(d2 - min d2) / temperature), d2 between standardised features
    size_weight: bool  # weight a cluster by its records as well
    mix: Share  # weight of the clusters; the global head has the rest


class Evaluate(Section):
    linear_head: bool  # also train the yardstick: one linear head on all private data
    linear_penalty: Rate | None  # L2, inverse of scikit-learn's C; None: chosen on public records
    remember: bool  # keep features of private test images in .lmeraser; the metrics' bytes do not depend on it
    min_group: Annotated[int, Field(ge=2)]  # subjects; smaller groups show no number of their own


AUTHORITY_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[!\"$-~]*)?")  # no user, password or fragment


def _authority(url: str) -> str:
    if not AUTHORITY_URL.fullmatch(url):
        raise ValueError(
            "service.timestamp_url is no URL of a time-stamp authority; expected http(s)://HOST/PATH without user, password or "
            "fragment, or null"
        )
    return url


Authority = Annotated[str, AfterValidator(_authority)]


class Service(Section):
    approval: bool  # a person must approve a request before it takes effect
    accept_unknown: bool  # certify though stores hold objects that no known version of the pipeline names
    window_s: NonNegative  # s; requests that come within it share one retraining
    lease_s: Annotated[int, Field(ge=5)]  # s; a coordinator that is silent for longer has lost its requests
    attempts: Positive  # tries before a request is failed and waits for a person
    fan_out: Literal["here", "workers", "clones"]  # who embeds and tunes when a Prefect flow builds or erases
    due_days: Positive  # days from receipt to the due date
    grace_s: NonNegative  # s from taking effect until a request is carried out; it may be withdrawn meanwhile
    audit_share: Annotated[int, Field(ge=0)]  # each day one stored file of so many is read whole; 0: none
    rebuild_share: Annotated[int, Field(ge=0)]  # of so many erasures one, chosen by a key, is rebuilt at once; 0: none
    timestamp_url: Authority | None  # of an RFC 3161 authority that dates certificates; null: none
    timestamp_roots: Annotated[str, Field(min_length=1)] | None  # its roots, a PEM file; null: what it answers is not judged here


class Consent(Section):
    """Who may have to go without having asked here is proposed; no stage reads it."""

    column: Annotated[str, Field(min_length=1)] | None  # of the manifest: whether consent is given
    vanished: bool  # `build` proposes people of the built model who are not in the source any more
    accept: Literal["person", "after-grace"]  # who accepts what is proposed: a person, or time
    grace_days: Annotated[int, Field(ge=0)]  # days from being proposed to being accepted by itself
    most_share: Share  # of the people; where more wait to be accepted by themselves, a person must accept them


class Retention(Section):
    """How long what is kept; no stage reads it. null: for ever."""

    column: Annotated[str, Field(min_length=1)] | None  # of the manifest: a date; null: records do not expire
    days: Annotated[int, Field(ge=0)]  # that a record stays after that date
    logs_days: Positive | None  # of .lmeraser/logs
    runs_days: Positive | None  # of Prefect's runs and their logs, once they ended
    words_days: Positive | None  # of what people wrote about requests (approver, reasons), once those ended
    audit_days: Positive  # what tells of audits and approvals stays at least so long, whatever else is said


class Review(Section):
    """Tolerances between two states; no stage reads them."""

    accuracy_drop: Share  # of the served accuracy
    class_drop: Share  # of one label's accuracy
    cluster_drop: Share  # of the accuracy where one cluster answers
    least_wrong: Positive  # test records of a label or cluster; fewer newly wrong ones break nothing
    log_loss_rise: NonNegative  # nats


IN_ROOT = 64  # slots that dvc.yaml itself holds; measured: docs/decisions/0019
RANGE = re.compile(r"c00\.\.c([0-9]{2,5})")


def slot_name(number: int) -> str:
    return f"c{number:02d}"


def expand_slots(value: Any) -> Any:
    """`c00..c511`, all of them by their numbers, to the list of names; anything else as it is.

    DVC copies a param's value into its lock and reads params.yaml for every stage that has any: hundreds of names cost seconds.
    """
    match = RANGE.fullmatch(value) if isinstance(value, str) else None
    if not match:
        return value
    count = int(match[1]) + 1
    if count <= IN_ROOT:  # dvc.yaml itself reads the list then
        raise ValueError(f"a range is only for more than {IN_ROOT} slots; list the {count} names")
    return [slot_name(number) for number in range(count)]


class Params(Section):
    seed: int
    device: Literal["cpu", "cuda"]
    source: Annotated[Source | PublishedSource, Field(discriminator="kind")]
    parts: Annotated[tuple[Name, ...], Field(min_length=1, strict=False)]
    shards: Annotated[int, Field(ge=1, le=MOST_SHARDS)]  # files of each part
    slots: Annotated[tuple[Name, ...], BeforeValidator(expand_slots), Field(min_length=1, strict=False)]
    image: ImageParams
    pretrain: Pretrain
    features: Features
    skeleton: Skeleton
    projection: Projection
    embed: Embed
    cluster: Cluster
    tune: Tune
    head: Head
    serve: Serve
    evaluate: Evaluate
    service: Service
    consent: Consent
    retention: Retention
    review: Review

    @model_validator(mode="after")
    def _enough_anchors(self) -> "Params":
        if self.cluster.method == "anchors" and self.cluster.k > self.cluster.anchors:
            raise ValueError(f"cluster.k is {self.cluster.k}, expected at most cluster.anchors {self.cluster.anchors}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        for name in ("parts", "slots"):
            names = getattr(self, name)
            if len(set(names)) != len(names):
                raise ValueError(f"{name} has a name twice; expected each name once")
        if 2 * self.tune.frame_px >= self.image.size:
            raise ValueError(f"tune.frame_px is {self.tune.frame_px}, expected less than half of image.size {self.image.size}")
        if self.tune.frame_px and not self.tune.frame_rate:
            raise ValueError("tune.frame_rate is 0, expected more than 0: a frame that never moves costs time for nothing")
        if self.tune.min_batch > self.tune.batch:
            raise ValueError(f"tune.min_batch is {self.tune.min_batch}, expected at most tune.batch {self.tune.batch}")
        if self.tune.kind == "none" and self.serve.mix:
            raise ValueError(f"serve.mix is {self.serve.mix:g}, expected 0 with tune.kind none: no cluster is there to answer")
        if self.tune.kind == "closed" and (self.head.kind != "discriminant" or self.cluster.method == "anchors"):
            raise ValueError("tune.kind is closed, expected head.kind discriminant, and cluster.method tree or random, with it")
        if self.cluster.n_min > self.cluster.n_max:
            raise ValueError(f"cluster.n_min is {self.cluster.n_min}, expected at most n_max {self.cluster.n_max}")
        return self

    def check_slots(self, needed: int, what: str) -> None:
        """Raise SlotError if `needed` clusters could be asked for and fewer slots are listed."""
        if needed > len(self.slots):
            raise SlotError(
                f"params.yaml: {what} is {needed}, but slots lists {len(self.slots)}; "
                f"append {needed - len(self.slots)} more slots ({needed} are needed): run `lmeraser slots {needed}`"
            )


def _sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field may hold: one, none, or those of a union."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [section for argument in get_args(annotation) for section in _sections_of(argument)]


KINDS = {
    kind: s
    for s in _sections_of(Params.model_fields["source"].annotation)
    for kind in get_args(s.model_fields["kind"].annotation)
}


def _place(location: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where an error is, in the file's words: pydantic names a source's kind on the way."""
    if location[:1] == ("source",) and len(location) > 1 and location[1] in KINDS:
        return ("source", *location[2:])
    return location


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    section: type[BaseModel] = Params
    for key in location[:-1]:
        if section is Params and key == "source":
            section = KINDS[location[1]]
        elif key not in KINDS:
            field = section.model_fields.get(key)
            inner = _sections_of(field.annotation) if field else []
            if not inner:
                return []
            section = inner[0]
    return list(section.model_fields)


def _one_line(path: Path, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    location = _place(first["loc"])
    where = ".".join(str(key) for key in location)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), _known_keys(first["loc"]), 1)
        hint = f"did you mean {near[0]}?" if near else "remove it"
        return f"{path.name}: unknown param {' '.join(where.split())}; {hint}"
    if first["type"] == "union_tag_not_found":
        where += ".kind"
    if first["type"] in ("missing", "union_tag_not_found"):
        return f"{path.name}: param {where} is missing; every param is given once, see the comments of params.yaml"
    if first["type"] == "union_tag_invalid":
        return f"{path.name}: {where}.kind is {str(first['ctx']['tag'])[:40]!r}: expected {', '.join(KINDS)}"
    value = "" if isinstance(first["input"], dict) else f" is {str(first['input'])[:40]!r}"
    message = first["msg"].removeprefix("Value error, ")
    # A rule between values names them itself.
    return f"{path.name}: {message}" if not where or first["type"] == "value_error" else f"{path.name}: {where}{value}: {message}"


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises: ParamsError with one line; SlotError if slots could run out.
    """
    params = read_params(path)
    params.check_slots(params.skeleton.leaves, "skeleton.leaves")
    if params.cluster.method == "anchors":
        params.check_slots(params.cluster.k, "cluster.k")
    return params


def read_params(path: Path) -> Params:
    """`load_params` for whoever appends slots: they may still be too few. Raises: ParamsError with one line."""
    try:
        return _read(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError as error:
        raise ParamsError(f"{path.name} is missing; run this in the project's folder") from error
    except OSError as error:
        raise ParamsError(f"{path.name} cannot be read ({error.strerror}); expected a file") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path.name} is not valid YAML; correct it and retry") from error


@lru_cache(maxsize=4)  # each step of a request reads the file again, which may be another one then
def _read(text: str, path: Path) -> Params:
    try:
        raw = strict_yaml(text, once=True)
    except (yaml.YAMLError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        at = f" at line {line + 1}" if line is not None else ""
        raise ParamsError(f"{path.name} is not valid YAML{at}; correct it and retry") from error
    if not isinstance(raw, dict):
        raise ParamsError(f"{path.name} holds no sections; expected the keys {', '.join(Params.model_fields)}")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(_one_line(path, error)) from error
